package proxy

import (
	"math"
	"net/netip"
	"strconv"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"

	"gatehouse/proxy/problem"
)

const (
	// limiterSubjects bounds how many subjects one limiter knows at a time.
	limiterSubjects = 100_000
	// limiterIdle is after how long without a request a subject is forgotten;
	// its budget is full again by then for every sensible rate.
	limiterIdle = 10 * time.Minute
)

// Limiter limits the rate of each of many subjects on this node by a token
// bucket. A nil *Limiter does not limit. It may be used concurrently.
type Limiter struct {
	perSecond rate.Limit
	burst     int
	buckets   *otter.Cache[string, *rate.Limiter]
}

// NewLimiter makes a limiter of that many requests a second, and that many at
// once; nil, which does not limit, for a rate of 0.
func NewLimiter(perSecond float64, burst int) *Limiter {
	if perSecond <= 0 {
		return nil
	}
	return &Limiter{
		perSecond: rate.Limit(perSecond), burst: burst,
		buckets: otter.Must(&otter.Options[string, *rate.Limiter]{
			MaximumSize:      limiterSubjects,
			ExpiryCalculator: otter.ExpiryAccessing[string, *rate.Limiter](limiterIdle),
		}),
	}
}

// take takes one request from the subject's budget. It returns a rate_limited
// problem when there is none.
func (l *Limiter) take(subject string, now time.Time) error {
	if l == nil {
		return nil
	}
	bucket, known := l.buckets.GetIfPresent(subject)
	if !known {
		bucket, _ = l.buckets.SetIfAbsent(subject, rate.NewLimiter(l.perSecond, l.burst))
	}
	if bucket.AllowN(now, 1) {
		return nil
	}
	wait := time.Duration((1 - bucket.TokensAt(now)) / float64(l.perSecond) * float64(time.Second))
	p := problem.New(problem.RateLimited, "There were too many requests in a short time. Wait before the next.")
	p.RetryAfter = max(wait, time.Second)
	p.RateLimit = `"default";r=0;t=` + seconds(p.RetryAfter)
	p.RateLimitPolicy = `"default";q=` + strconv.Itoa(l.burst) + ";w=" +
		seconds(time.Duration(float64(l.burst)/float64(l.perSecond)*float64(time.Second)))
	return p
}

// Close ends the limiter's background work.
func (l *Limiter) Close() {
	if l != nil {
		l.buckets.StopAllGoroutines()
	}
}

func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))) }

// failureSubject is whom failed authentications of an address are counted
// for: an IPv6 client has a whole /64 to choose addresses from.
func failureSubject(client netip.Addr) string {
	if !client.Is6() {
		return client.String()
	}
	network, err := client.Prefix(64)
	if err != nil {
		return client.String()
	}
	return network.String()
}
