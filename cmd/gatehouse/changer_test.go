package main_test

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"net/http"
	"time"
)

// change makes one change after the other until the context ends; many of its
// clients hang up at some point of it.
func (f *fleet) change(ctx context.Context) {
	tick := time.NewTicker(f.rest)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			f.changeOnce(context.WithoutCancel(ctx)) // it hangs up by itself
		case <-ctx.Done():
			return
		}
	}
}

// changeOnce makes any change that is possible.
func (f *fleet) changeOnce(ctx context.Context) {
	node := rand.IntN(len(f.gateways))
	if rand.IntN(5) == 0 {
		if s := f.create(ctx, rand.IntN(len(f.roots)), node, f.patience()); s != nil {
			f.add(s, false)
		}
		return
	}
	s := f.take()
	if s == nil {
		return
	}
	f.changeOf(ctx, s, node, f.patience())
}

// take returns a key that nobody else changes, and that still exists; nil when
// none was found.
func (f *fleet) take() *subject {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.subjects) == 0 {
		return nil
	}
	for range 20 {
		s := f.subjects[rand.IntN(len(f.subjects))]
		s.mu.Lock()
		free := !s.busy
		s.busy = true
		s.mu.Unlock()
		if !free {
			continue
		}
		if exists, certain := s.has(toExist); exists || !certain {
			return s
		}
		s.release()
	}
	return nil
}

func (s *subject) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
}

// patience is for how long the client of a change waits: nil for as long as it
// takes, and otherwise it hangs up.
func (f *fleet) patience() *time.Duration {
	if rand.IntN(3) != 0 {
		return nil
	}
	d := time.Duration(rand.IntN(20_000)) * time.Microsecond
	return &d
}

// changeOf makes the next change of a key that was taken. One that nobody knows
// of is asked for again, until it is acknowledged: in the same direction, as the
// first may be carried out yet.
func (f *fleet) changeOf(ctx context.Context, s *subject, node int, patience *time.Duration) {
	defer s.release()
	exists, existsForSure := s.has(toExist)
	used, usedForSure := s.has(toBeUsed)
	writes, writesForSure := s.has(toWrite)
	switch choice := rand.IntN(10); {
	case !exists || choice < 2:
		f.revoke(ctx, s, node, patience)
	case !used && !usedForSure || used && choice < 5 && usedForSure:
		f.update(ctx, s, toBeUsed, true, node, patience)
	case used && !usedForSure: // it was to be enabled
		f.update(ctx, s, toBeUsed, false, node, patience)
	case !writes && !writesForSure || writes && choice < 8 && writesForSure:
		f.update(ctx, s, toWrite, true, node, patience)
	case writes && !writesForSure:
		f.update(ctx, s, toWrite, false, node, patience)
	case !used:
		f.update(ctx, s, toBeUsed, false, node, patience)
	case !writes:
		f.update(ctx, s, toWrite, false, node, patience)
	case existsForSure:
		f.regenerate(ctx, s, node, patience)
	}
}

// hurried is the context of a client that hangs up.
func hurried(ctx context.Context, patience *time.Duration) (context.Context, context.CancelFunc) {
	if patience == nil {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, *patience)
}

// note counts a change. Those whose client hung up say nothing of the store.
func (f *fleet) note(got said, began time.Time, sure, takes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.findings.changes++
	if !sure {
		f.findings.unsure++
	}
	if !got.hungUp {
		f.findings.changed = append(f.findings.changed, changed{began: began, ended: time.Now(), sure: sure, takes: takes})
	}
}

// create makes a key, and returns nil when it does not know whether there is one.
func (f *fleet) create(ctx context.Context, account, node int, patience *time.Duration) *subject {
	ctx, cancel := hurried(ctx, patience)
	defer cancel()
	began := time.Now()
	got := f.manage(ctx, account, node, http.MethodPost, keysPath, may("serp_api:read", "serp_api:write"))
	var made struct{ Data key }
	sure := got.err == nil && got.status == http.StatusCreated && json.Unmarshal(got.body, &made) == nil
	f.note(got, began, sure, false)
	f.unlessKnown(got, "create")
	if !sure {
		return nil
	}
	s := &subject{key: made.Data, account: account}
	s.made(node, began)
	return s
}

// unlessKnown holds an answer to a change against what must never be said: the
// key that asks is good, and the key that is asked for is there.
func (f *fleet) unlessKnown(got said, what string) {
	switch got.status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		f.wrong(&f.findings.refused, "%s: got %d %s", what, got.status, got.body)
	}
}

func (f *fleet) revoke(ctx context.Context, s *subject, node int, patience *time.Duration) {
	ctx, cancel := hurried(ctx, patience)
	defer cancel()
	_, certain := s.has(toExist)
	began := time.Now()
	finish := s.begin(toExist, true, node)
	var got said
	if rand.IntN(3) == 0 {
		got = f.operate(ctx, node, http.MethodDelete, "/accounts/"+accountOf(s.account)+"/keys/"+s.ID, nil)
	} else {
		got = f.manage(ctx, s.account, node, http.MethodDelete, keyTarget(s.ID), nil)
	}
	gone := got.err == nil && got.status == http.StatusNotFound && !certain // by a try before
	sure := got.err == nil && got.status == http.StatusOK || gone
	finish(sure)
	f.note(got, began, sure, true)
	if !gone {
		f.unlessKnown(got, "revoke "+s.ID)
	}
}

func (f *fleet) update(ctx context.Context, s *subject, r right, takes bool, node int, patience *time.Duration) {
	body := map[string]any{}
	switch {
	case r == toBeUsed:
		body["is_active"] = !takes
	case takes:
		body["permissions"] = []string{"serp_api:read"}
	default:
		body["permissions"] = []string{"serp_api:read", "serp_api:write"}
	}
	ctx, cancel := hurried(ctx, patience)
	defer cancel()
	began := time.Now()
	finish := s.begin(r, takes, node)
	got := f.manage(ctx, s.account, node, http.MethodPut, keyTarget(s.ID), body)
	sure := got.err == nil && got.status == http.StatusOK
	finish(sure)
	f.note(got, began, sure, takes)
	if exists, certain := s.has(toExist); exists && certain {
		f.unlessKnown(got, "update "+s.ID)
	}
}

// regenerate puts another key in the place of one. Where nobody knows whether it
// did, the key is revoked next.
func (f *fleet) regenerate(ctx context.Context, s *subject, node int, patience *time.Duration) {
	used, usedForSure := s.has(toBeUsed)
	writes, writesForSure := s.has(toWrite)
	if !used || !usedForSure || !writes || !writesForSure {
		return
	}
	ctx, cancel := hurried(ctx, patience)
	defer cancel()
	began := time.Now()
	finish := s.begin(toExist, true, node)
	got := f.manage(ctx, s.account, node, http.MethodPost, keyTarget(s.ID)+"/regenerate", nil)
	var made struct{ Data key }
	sure := got.err == nil && got.status == http.StatusOK && json.Unmarshal(got.body, &made) == nil
	finish(sure)
	f.note(got, began, sure, false) // it makes a key too, which needs room
	f.unlessKnown(got, "regenerate "+s.ID)
	if sure {
		next := &subject{key: made.Data, account: s.account}
		next.made(node, began)
		f.add(next, false)
	}
}
