package keystore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/policy"
)

// UsageHours and UsageDays are for how long requests stay counted by hour and by
// day.
const (
	UsageHours = 31 * 24 * time.Hour
	UsageDays  = 400 * 24 * time.Hour
)

const (
	secondsPerHour = 60 * 60
	day            = 24 * time.Hour
	// everyKey stands for all keys of the account together. It is no key's id.
	everyKey = policy.KeyID("all")
	// usagePipeline is how many commands on buckets are sent at a time, and
	// usageReadCounters for how many counters, unless a single bucket has more.
	// Redis answers them in one go, for which lookups wait.
	usagePipeline     = 500
	usageReadCounters = 5_000
	// maxUsageRoute is how many bytes of a route stand in a field.
	maxUsageRoute = 256
)

// UsageStep is what requests are counted by: an hour, or a day, of UTC.
type UsageStep string

// The steps.
const (
	ByHour UsageStep = "hour"
	ByDay  UsageStep = "day"
)

// bucket is a hash of counters of one key: the hours of a day, or the days of
// a month. It goes away as a whole, when the last of them is too old.
type bucket struct {
	begin time.Time
	step  UsageStep
}

// bucketAt returns the bucket in which the moment is counted.
func bucketAt(at time.Time, step UsageStep) bucket {
	at = at.UTC()
	if step == ByHour {
		return bucket{at.Truncate(day), step}
	}
	return bucket{time.Date(at.Year(), at.Month(), 1, 0, 0, 0, 0, time.UTC), step}
}

func (b bucket) next() bucket {
	if b.step == ByHour {
		return bucket{b.begin.Add(day), b.step}
	}
	return bucket{b.begin.AddDate(0, 1, 0), b.step}
}

// ends is the Unix second at which the bucket goes away.
func (b bucket) ends() int64 {
	if b.step == ByHour {
		return b.next().begin.Add(UsageHours).Unix()
	}
	return b.next().begin.Add(UsageDays).Unix()
}

// name spells the bucket's key in Redis, in the slot of its account.
func (n names) usage(account policy.AccountID, key policy.KeyID, b bucket) string {
	layout := "2006-01"
	if b.step == ByHour {
		layout = time.DateOnly
	}
	return n.account(account) + ":usage:" + string(key) + ":" + b.begin.Format(layout)
}

// field names a counter in its bucket: the hour of the day or the day of the
// month, and what was counted. The route stands last, as it may have blanks.
func (b bucket) field(at time.Time, c counted) string {
	number := at.Day()
	if b.step == ByHour {
		number = at.Hour()
	}
	field := strconv.Itoa(number) + " " + string(c.permission) + " " + c.outcome
	if c.route == "" {
		return field
	}
	return field + " " + usageRoute(c.route)
}

// parse reads what field wrote, now or before routes were counted; ok is false
// for anything else.
func (b bucket) parse(field string) (at time.Time, c counted, ok bool) {
	parts := strings.SplitN(field, " ", 4)
	if len(parts) < 3 || slices.Contains(parts, "") {
		return time.Time{}, counted{}, false
	}
	number, err := strconv.Atoi(parts[0])
	if b.step == ByHour {
		at, ok = b.begin.Add(time.Duration(number)*time.Hour), number >= 0 && number < 24
	} else {
		at, ok = b.begin.AddDate(0, 0, number-1), number >= 1 && number <= 31
	}
	c = counted{permission: policy.Permission(parts[1]), outcome: parts[2]}
	if len(parts) == 4 {
		c.route = parts[3]
	}
	return at, c, ok && err == nil
}

// usageRoute is the route as counters name it: itself, or the beginning of one
// that is very long and a part of its hash. It may be applied again.
func usageRoute(pattern string) string {
	if len(pattern) <= maxUsageRoute {
		return pattern
	}
	sum := sha256.Sum256([]byte(pattern))
	end := "…" + hex.EncodeToString(sum[:8])
	return strings.ToValidUTF8(pattern[:maxUsageRoute-len(end)], "") + end
}

// buckets yields those that have something of the time from from until to, to
// not included.
func buckets(from, to time.Time, step UsageStep) iter.Seq[bucket] {
	return func(yield func(bucket) bool) {
		for b := bucketAt(from, step); b.begin.Before(to) && yield(b); b = b.next() {
		}
	}
}

// usageSteps are the steps that write what was noted: each key's last use, and
// its counters, which also count for the account.
func (s *Store) usageSteps(account policy.AccountID, taken []noted) []step {
	var steps []step
	type counter struct{ key, field string }
	sums := map[counter]*step{}
	add := func(key policy.KeyID, c count) {
		at := time.Unix(c.what.hour*secondsPerHour, 0).UTC()
		for _, by := range []UsageStep{ByHour, ByDay} {
			b := bucketAt(at, by)
			to := counter{s.names.usage(account, key, b), b.field(at, c.what)}
			if sums[to] == nil {
				sums[to] = &step{Kind: stepCount, Key: to.key, Field: to.field, Value: "0", Ends: b.ends()}
			}
			sums[to].add(c.requests)
		}
	}
	for _, n := range taken {
		if n.last != 0 && !n.gone {
			steps = append(steps, step{Kind: stepHSet, Key: s.names.used(account), Field: s.usedField(string(n.id)), Value: strconv.FormatInt(n.last, 10)})
		}
		for _, c := range n.counts {
			if !n.gone {
				add(n.id, c)
			}
			add(everyKey, c)
		}
	}
	for _, sum := range sums {
		steps = append(steps, *sum)
	}
	return steps
}

// add counts more in a step that counts.
func (s *step) add(requests int64) {
	was, _ := strconv.ParseInt(s.Value, 10, 64) // written by this process
	s.Value = strconv.FormatInt(was+requests, 10)
}

// forgetUsage removes the counters of keys that are gone, while the guards hold.
// What a crash leaves of them is shown to nobody, and goes away by itself.
func (s *Store) forgetUsage(ctx context.Context, account policy.AccountID, guards []guard, keys ...policy.KeyID) error {
	now := s.o.Now()
	var all []string
	for _, key := range keys {
		for _, step := range []UsageStep{ByHour, ByDay} {
			kept := UsageDays
			if step == ByHour {
				kept = UsageHours
			}
			// A bucket lives on while the last step in it is kept; a clock may be fast.
			for b := range buckets(bucketAt(now.Add(-kept), step).begin, now.Add(2*day), step) {
				all = append(all, s.names.usage(account, key, b))
			}
		}
	}
	for names := range slices.Chunk(all, usagePipeline) {
		found, err := s.data.exist(ctx, names)
		if err != nil {
			return errors.Join(ErrUnavailable, err)
		}
		c := change{guards: guards}
		for i, name := range names {
			if found[i] {
				c.steps = append(c.steps, step{Kind: stepDel, Key: name})
			}
		}
		if len(c.steps) == 0 {
			continue
		}
		if err := s.commit(ctx, c); err != nil {
			return err
		}
	}
	return nil
}
