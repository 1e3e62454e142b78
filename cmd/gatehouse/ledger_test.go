package main_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"
)

// right is one of what a key may have, each of which is given and taken by
// itself.
type right int

const (
	toExist right = iota // taken by revocation and regeneration, for good
	toBeUsed
	toWrite
	rights
)

// deed is a change of a right that some client asked for.
type deed struct {
	right right
	takes bool
	node  int // that was asked
	began time.Time
	ended time.Time // zero while it is under way
	// sure: it was acknowledged. Otherwise it was carried out, or not, or will be.
	sure bool
}

// subject is a key with all that clients were told about it. Rights are taken
// and given back in turn only while every answer has come: so the order of the
// deeds is known.
type subject struct {
	key
	account int
	steady  bool // is never changed

	mu    sync.Mutex
	deeds []deed
	busy  bool // a change is under way, or must be repeated
}

// begin notes that a change is asked for, and finish what became of it.
func (s *subject) begin(r right, takes bool, node int) (finish func(sure bool)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := len(s.deeds)
	s.deeds = append(s.deeds, deed{right: r, takes: takes, node: node, began: time.Now()})
	return func(sure bool) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.deeds[i].ended, s.deeds[i].sure = time.Now(), sure
	}
}

// made notes all rights of a key that was made.
func (s *subject) made(node int, began time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for r := range rights {
		s.deeds = append(s.deeds, deed{right: r, node: node, began: began, ended: time.Now(), sure: true})
	}
}

// has reports what the last change of a right was, and whether all changes of
// it were acknowledged.
func (s *subject) has(r right) (has, certain bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	certain = true
	for _, d := range s.deeds {
		if d.right == r {
			has, certain = !d.takes, certain && d.sure
		}
	}
	return has, certain
}

// wasTaken reports whether anybody asked to take a right from the key.
func (s *subject) wasTaken() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.deeds, func(d deed) bool { return d.takes })
}

// attempt is the use of a key at a node.
type attempt struct {
	subject *subject
	node    int
	writes  bool
	began   time.Time
	ended   time.Time
}

// bounds says for how long after the acknowledgement of a change a node may go
// on as before.
type bounds func(d deed, a attempt) time.Duration

// mustRefuse reports whether the attempt must not reach a backend, and how long
// before it the last taking was acknowledged: false when nothing was taken.
func (a attempt) mustRefuse(within bounds) (wrong bool, since time.Duration, taken bool) {
	for _, r := range a.needs() {
		a.subject.mu.Lock()
		for _, d := range a.subject.deeds {
			switch {
			case d.right != r:
			case !d.takes && d.began.Before(a.ended): // it may have been given back
				wrong, taken, since = false, false, 0
			case d.takes && d.sure && !d.ended.After(a.began):
				taken, since = true, a.began.Sub(d.ended)
				wrong = wrong || since >= within(d, a)
			}
		}
		a.subject.mu.Unlock()
		if wrong {
			return wrong, since, taken
		}
	}
	return false, since, taken
}

// mustPass reports whether nothing but an outage may keep the attempt from its
// backend.
func (a attempt) mustPass(within bounds) bool {
	for _, r := range a.needs() {
		may := false
		a.subject.mu.Lock()
		for _, d := range a.subject.deeds {
			switch {
			case d.right != r:
			case d.takes && d.began.Before(a.ended): // it may have been taken
				may = false
			case !d.takes && d.sure && !d.ended.Add(within(d, a)).After(a.began):
				may = true
			}
		}
		a.subject.mu.Unlock()
		if !may {
			return false
		}
	}
	return true
}

func (a attempt) needs() []right {
	if a.writes {
		return []right{toExist, toBeUsed, toWrite}
	}
	return []right{toExist, toBeUsed}
}

// TestLedger: what judges the gateways judges rightly.
func TestLedger(t *testing.T) {
	start := time.Now()
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	within := func(d deed, a attempt) time.Duration {
		if d.node == a.node {
			return 0
		}
		return time.Second
	}
	created := []deed{{right: toExist, sure: true, ended: at(0)}, {right: toBeUsed, sure: true, ended: at(0)}, {right: toWrite, sure: true, ended: at(0)}}
	takes := func(r right, node, began, ended int, sure bool) deed {
		return deed{right: r, takes: true, node: node, began: at(began), ended: at(ended), sure: sure}
	}
	gives := func(r right, node, began, ended int, sure bool) deed {
		return deed{right: r, node: node, began: at(began), ended: at(ended), sure: sure}
	}
	for name, row := range map[string]struct {
		deeds                []deed
		node, began, ended   int
		writes               bool
		mustRefuse, mustPass bool
	}{
		"made":                                   {nil, 0, 10, 11, true, false, true},
		"made, the other node, within the bound": {nil, 1, 500, 501, false, false, false},
		"made, the other node":                   {nil, 1, 1500, 1501, false, false, true},
		"revoked here":                           {[]deed{takes(toExist, 0, 10, 20, true)}, 0, 21, 22, false, true, false},
		"revoked there, within the bound":        {[]deed{takes(toExist, 1, 10, 20, true)}, 0, 500, 501, false, false, false},
		"revoked there":                          {[]deed{takes(toExist, 1, 10, 20, true)}, 0, 1500, 1501, false, true, false},
		"perhaps revoked":                        {[]deed{takes(toExist, 0, 10, 20, false)}, 0, 9000, 9001, false, false, false},
		"begun before the acknowledgement":       {[]deed{takes(toExist, 0, 10, 20, true)}, 0, 15, 30, false, false, false},
		"narrowed, reads":                        {[]deed{takes(toWrite, 0, 10, 20, true)}, 0, 30, 31, false, false, true},
		"narrowed, writes":                       {[]deed{takes(toWrite, 0, 10, 20, true)}, 0, 30, 31, true, true, false},
		"disabled and enabled again":             {[]deed{takes(toBeUsed, 0, 10, 20, true), gives(toBeUsed, 0, 30, 40, true)}, 0, 50, 51, false, false, true},
		"disabled and perhaps enabled again":     {[]deed{takes(toBeUsed, 0, 10, 20, true), gives(toBeUsed, 0, 30, 40, false)}, 0, 50, 51, false, false, false},
		"while it is enabled again":              {[]deed{takes(toBeUsed, 0, 10, 20, true), gives(toBeUsed, 0, 30, 40, true)}, 0, 25, 35, false, false, false},
		"disabled twice, there and here":         {[]deed{takes(toBeUsed, 1, 10, 20, false), takes(toBeUsed, 0, 30, 40, true)}, 0, 41, 42, false, true, false},
		"revoked, and perhaps narrowed":          {[]deed{takes(toWrite, 0, 5, 6, false), takes(toExist, 0, 10, 20, true)}, 0, 21, 22, true, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			s := &subject{deeds: append(slices.Clone(created), row.deeds...)}
			a := attempt{subject: s, node: row.node, writes: row.writes, began: at(row.began), ended: at(row.ended)}
			refuse, _, _ := a.mustRefuse(within)
			if pass := a.mustPass(within); refuse != row.mustRefuse || pass != row.mustPass {
				t.Errorf("must be refused %t, must pass %t; want %t, %t", refuse, pass, row.mustRefuse, row.mustPass)
			}
		})
	}
	s := &subject{}
	s.made(0, start)
	s.begin(toBeUsed, true, 1)(false)
	if has, certain := s.has(toBeUsed); has || certain {
		t.Error(fmt.Sprint("a right that was perhaps taken is there: ", has, certain))
	}
}
