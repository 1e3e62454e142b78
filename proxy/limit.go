package proxy

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/maypok86/otter/v2"
	"golang.org/x/time/rate"

	"gatehouse/keystore"
	"gatehouse/proxy/problem"
)

const (
	// limiterSubjects bounds how many subjects one limiter knows at a time.
	// Beyond it the least used are forgotten, and begin anew. Subjects are keys
	// that were found, so that nobody but an operator makes so many.
	limiterSubjects = 100_000
	// limiterIdle is the least time without a request after which a subject is
	// forgotten.
	limiterIdle = 10 * time.Minute
)

// LimiterOptions says what a Limiter limits.
type LimiterOptions struct {
	// Name tells clients which limit it was: the policy of RateLimit.
	Name string
	// Rate is how many requests a second a subject has, and Burst how many at
	// once. A Rate of 0 does not limit.
	Rate  float64
	Burst int
	// Shared are the budgets of all nodes; nil: each node has its own. Apart
	// tells this limiter's budgets there from another limiter's of the same
	// subjects: a text of any length, "" for none.
	Shared *SharedBudgets
	Apart  string
}

// Limiter limits the rate of each of many subjects by a token bucket. A nil
// *Limiter does not limit. It may be used concurrently.
type Limiter struct {
	name, policy string
	rate         keystore.Rate
	shared       *SharedBudgets
	apart        string
	buckets      *otter.Cache[string, *bucket]
}

// bucket is the budget of one subject on this node.
type bucket struct {
	tokens *rate.Limiter
	// closed is the Unix nanosecond until which all nodes together have nothing
	// left for the subject.
	closed atomic.Int64
}

// NewLimiter makes a limiter. Close must be called.
func NewLimiter(o LimiterOptions) *Limiter {
	if o.Rate <= 0 {
		return &Limiter{name: o.Name}
	}
	// A bucket that is forgotten must be full, or forgetting would be a gift.
	full := time.Duration(float64(o.Burst) / o.Rate * float64(time.Second))
	return &Limiter{
		name: o.Name, policy: policyOf(o.Name, o.Burst, full),
		rate: keystore.Rate{PerSecond: o.Rate, Burst: o.Burst}, shared: o.Shared, apart: suffixOf(o.Apart),
		buckets: otter.Must(&otter.Options[string, *bucket]{
			MaximumSize:      limiterSubjects,
			ExpiryCalculator: otter.ExpiryAccessing[string, *bucket](max(limiterIdle, full)),
		}),
	}
}

// suffixOf is short, and has no characters that the name of a budget has not.
func suffixOf(apart string) string {
	if apart == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(apart))
	return "-" + hex.EncodeToString(sum[:8])
}

// take takes one request from the subject's budget: from this node's, and,
// where nodes share it, from that of all of them too. It returns a
// rate_limited problem when there is none. While the nodes' shared budgets
// cannot be asked for, this node's holds alone.
func (l *Limiter) take(ctx context.Context, subject string, now time.Time) error {
	if !l.limits() {
		return nil
	}
	b := l.bucketOf(subject)
	if closed := time.Duration(b.closed.Load() - now.UnixNano()); closed > 0 {
		return l.refuse(closed)
	}
	if !b.tokens.AllowN(now, 1) {
		return l.refuse(untilNext(b.tokens, now))
	}
	if l.shared == nil {
		return nil
	}
	spent, asked := l.shared.spend(ctx, subject+l.apart, l.rate, now)
	if !asked || spent.Allowed {
		return nil
	}
	// A refusal costs nothing here either. Until then no node will be given
	// more, so that it need not be asked for.
	b.tokens.AllowN(now, -1)
	b.closed.Store(now.Add(spent.RetryAfter).UnixNano())
	return l.refuse(spent.RetryAfter)
}

// peek returns what take would, and takes nothing.
func (l *Limiter) peek(ctx context.Context, subject string, now time.Time) error {
	if !l.limits() {
		return nil
	}
	b := &bucket{tokens: newTokens(l.rate)}
	if known, is := l.buckets.GetEntryQuietly(subject); is {
		b = known.Value
	}
	if closed := time.Duration(b.closed.Load() - now.UnixNano()); closed > 0 {
		return l.refuse(closed)
	}
	if b.tokens.TokensAt(now) < 1 {
		return l.refuse(untilNext(b.tokens, now))
	}
	if l.shared == nil || l.shared.has(ctx, subject+l.apart, l.rate) {
		return nil
	}
	return l.refuse(time.Duration(float64(time.Second) / l.rate.PerSecond))
}

// takeHere reports whether the subject had one request left on this node
// alone, and takes it.
func (l *Limiter) takeHere(subject string, now time.Time) bool {
	return !l.limits() || l.bucketOf(subject).tokens.AllowN(now, 1)
}

func (l *Limiter) limits() bool { return l != nil && l.buckets != nil }

func (l *Limiter) bucketOf(subject string) *bucket {
	b, known := l.buckets.GetIfPresent(subject)
	if !known {
		b, _ = l.buckets.SetIfAbsent(subject, &bucket{tokens: newTokens(l.rate)})
	}
	return b
}

func (l *Limiter) refuse(wait time.Duration) error {
	return rateLimited(tooManyRequests, l.name, l.policy, wait)
}

// Close ends the limiter's background work.
func (l *Limiter) Close() {
	if l.limits() {
		l.buckets.StopAllGoroutines()
	}
}

func newTokens(r keystore.Rate) *rate.Limiter {
	return rate.NewLimiter(rate.Limit(r.PerSecond), r.Burst)
}

// untilNext is the time until the bucket has one more.
func untilNext(tokens *rate.Limiter, now time.Time) time.Duration {
	return time.Duration((1 - tokens.TokensAt(now)) / float64(tokens.Limit()) * float64(time.Second))
}

const tooManyRequests = "There were too many requests in a short time. Wait before the next."

// rateLimited is the refusal of a limit, whose policy has been spelt out. What
// it tells clients is never more than they will get.
func rateLimited(detail, name, policy string, wait time.Duration) error {
	p := problem.New(problem.RateLimited, detail)
	p.RetryAfter = max(wait, time.Second)
	p.RateLimit = `"` + name + `";r=0;t=` + seconds(p.RetryAfter)
	p.RateLimitPolicy, p.Limit = policy, name
	return p
}

// policyOf spells the policy of a bucket that is full after the given time
// (draft-ietf-httpapi-ratelimit-headers-10 §3.1).
func policyOf(name string, burst int, full time.Duration) string {
	return `"` + name + `";q=` + strconv.Itoa(burst) + ";w=" + seconds(full)
}

func seconds(d time.Duration) string { return strconv.Itoa(max(1, int(math.Ceil(d.Seconds())))) }
