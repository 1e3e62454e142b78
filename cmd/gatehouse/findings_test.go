package main_test

import (
	"fmt"
	"slices"
	"time"
)

// used is how a key that is never changed fared at one moment.
type used struct {
	node         int
	began, ended time.Time
	passed       bool
	status       int // 0: no answer
}

// changed is a change that was asked for by a client that waited for the answer.
type changed struct {
	began, ended time.Time
	sure         bool
	takes        bool // a right, and does nothing else
}

// findings are what the clients of a fleet saw. The lists of wrongs have some
// of them in words.
type findings struct {
	requests, changes, unsure int
	letThrough, refused, lost int // wrongly
	wrongs                    []string
	steady                    []used
	changed                   []changed
	// latest is for how long after its acknowledgement a taking was not heeded:
	// at the node that acknowledged it, and at others.
	latest, latestElsewhere time.Duration
}

// wrong notes what must not be in one of the counters.
func (f *fleet) wrong(counter *int, format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*counter++
	const most = 6
	if len(f.findings.wrongs) < most {
		f.findings.wrongs = append(f.findings.wrongs, fmt.Sprintf(format, args...))
	}
}

// judge holds what became of a request against what is known of its key.
func (f *fleet) judge(a attempt, reached bool, got said) {
	passed := reached && got.err == nil && got.status == 200
	f.mu.Lock()
	f.findings.requests++
	if a.subject.steady {
		f.findings.steady = append(f.findings.steady, used{a.node, a.began, a.ended, passed, got.status})
	}
	f.mu.Unlock()
	if reached {
		wrong, since, taken := a.mustRefuse(f.within)
		if wrong {
			f.wrong(&f.findings.letThrough, "let through %s: node %d, %s after a right was taken; %s", a.subject.ID, a.node, since.Round(time.Millisecond), a.subject.history())
		}
		if taken {
			f.late(a, since)
		}
		return
	}
	if got.status >= 400 && got.status < 500 && a.mustPass(f.within) {
		f.wrong(&f.findings.refused, "refused %s: node %d, %d %s; %s", a.subject.ID, a.node, got.status, got.body, a.subject.history())
	}
}

func (f *fleet) late(a attempt, since time.Duration) {
	a.subject.mu.Lock()
	here := slices.ContainsFunc(a.subject.deeds, func(d deed) bool { return d.takes && d.sure && d.node == a.node })
	a.subject.mu.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	if here {
		f.findings.latest = max(f.findings.latest, since)
	} else {
		f.findings.latestElsewhere = max(f.findings.latestElsewhere, since)
	}
}

// history is what was done to a key, for people.
func (s *subject) history() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := ""
	for _, d := range s.deeds {
		verb, outcome := "gave", "acknowledged"
		if d.takes {
			verb = "took"
		}
		if !d.sure {
			outcome = "unsure"
		}
		ended := "under way"
		if !d.ended.IsZero() {
			ended = fmt.Sprintf("%s, %s ago", outcome, time.Since(d.ended).Round(time.Millisecond))
		}
		text += fmt.Sprintf("[node %d %s right %d: %s]", d.node, verb, d.right, ended)
	}
	return text
}

// report is what the findings come to.
type report struct {
	letThrough, refused, lost int
	requests, changes, unsure int
	toUnavailable             time.Duration // from the fault to the first 503 or missing answer; negative: none
	toNormal                  time.Duration // until requests pass again and stay so; negative: never
	toManage                  time.Duration // until changes are acknowledged again and stay so; negative: never
	slowest                   time.Duration // of the requests while there was trouble
	passed                    float64       // share of the requests in the outage
	taken, notTaken           int           // takings in the outage that were acknowledged, and those that were not
	latest, latestElsewhere   time.Duration
}

// settling is how long a fault may take to begin.
const settling = 200 * time.Millisecond

// report sums up what was seen since a fault, until it was healed and from when
// on everything was to become normal.
func (f *fleet) report(fault, healed, normalFrom time.Time) report {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := report{
		letThrough: f.findings.letThrough, refused: f.findings.refused, lost: f.findings.lost,
		requests: f.findings.requests, changes: f.findings.changes, unsure: f.findings.unsure,
		toUnavailable: -1, latest: f.findings.latest, latestElsewhere: f.findings.latestElsewhere,
	}
	during, good := 0, 0
	for _, u := range f.findings.steady {
		if u.ended.Before(fault) {
			continue
		}
		if !u.passed {
			if after := u.ended.Sub(fault); r.toUnavailable < 0 || after < r.toUnavailable {
				r.toUnavailable = after
			}
			r.toNormal = max(r.toNormal, u.ended.Sub(normalFrom))
		}
		if u.began.After(fault) && u.began.Before(healed) {
			during++
			if u.passed {
				good++
			}
		}
		r.slowest = max(r.slowest, u.ended.Sub(u.began))
	}
	for _, c := range f.findings.changed {
		if c.ended.Before(fault) {
			continue
		}
		if !c.sure {
			r.toManage = max(r.toManage, c.ended.Sub(normalFrom))
		}
		switch {
		case !c.takes || c.began.Before(fault.Add(settling)) || c.ended.After(healed):
		case c.sure:
			r.taken++
		default:
			r.notTaken++
		}
	}
	r.passed = float64(good) / float64(max(1, during))
	return r
}

// isNormal reports whether for a while all requests have passed and a change was
// acknowledged, at every node.
func (f *fleet) isNormal(while time.Duration) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	since := time.Now().Add(-while)
	passed := map[int]bool{}
	for _, u := range slices.Backward(f.findings.steady) {
		if u.began.Before(since) && u.ended.Before(since) {
			break
		}
		if !u.passed {
			return false
		}
		passed[u.node] = true
	}
	acknowledged := f.plan.changers == 0
	for _, c := range slices.Backward(f.findings.changed) {
		if c.ended.Before(since) {
			break
		}
		if !c.sure {
			return false
		}
		acknowledged = true
	}
	return acknowledged && len(passed) == len(f.gateways)
}
