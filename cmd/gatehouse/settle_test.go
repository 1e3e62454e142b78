package main_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// settle repeats what was asked for until it is acknowledged, after the changers
// have stopped: from then on it is known what every key may do.
func (f *fleet) settle(within time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		var open []*subject
		for _, s := range f.all() {
			if s.isOpen() {
				open = append(open, s)
			}
		}
		if len(open) == 0 {
			return nil
		}
		for i, s := range open {
			f.conclude(ctx, s, i%len(f.gateways))
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%d changes are not acknowledged %s after everything was to be normal, such as of %s", len(open), within, open[0].history())
		}
	}
}

// isOpen reports whether the last change of a right is not known to be done. One
// whose key is gone needs not be.
func (s *subject) isOpen() bool {
	exists, _ := s.has(toExist)
	for r := range rights {
		if !s.sure(r) {
			return r == toExist || exists
		}
	}
	return false
}

// sure reports whether the last change of a right was acknowledged.
func (s *subject) sure(r right) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sure := false
	for _, d := range s.deeds {
		if d.right == r {
			sure = d.sure
		}
	}
	return sure
}

// conclude asks once more for the last changes that were not acknowledged.
func (f *fleet) conclude(ctx context.Context, s *subject, node int) {
	if exists, _ := s.has(toExist); !exists {
		f.revoke(ctx, s, node, nil)
		return
	}
	for _, r := range []right{toBeUsed, toWrite} {
		if has, _ := s.has(r); !s.sure(r) {
			f.update(ctx, s, r, !has, node, nil)
		}
	}
}

// verify holds what the gateways do and show in the end against what was
// acknowledged. What does not fit is looked at again until every bound is over.
func (f *fleet) verify() {
	ctx, cancel := context.WithTimeout(context.Background(), worstBound+2*time.Second)
	defer cancel()
	subjects := f.all()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		unfit := f.unfit(subjects)
		if len(unfit) == 0 {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			for _, what := range unfit {
				f.wrong(&f.findings.lost, "lost: %s", what)
			}
			return
		}
		subjects = slices.DeleteFunc(subjects, func(s *subject) bool { return unfit[s] == "" })
	}
}

// unfit returns those that are not as was acknowledged, and in which way.
func (f *fleet) unfit(subjects []*subject) map[*subject]string {
	unfit := map[*subject]string{}
	listed, err := f.listed()
	if err != nil {
		for _, s := range subjects {
			unfit[s] = fmt.Sprintf("%s cannot be seen: %v", s.ID, err)
		}
		return unfit
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	work := make(chan *subject)
	for range 8 {
		all.Go(func() {
			for s := range work {
				if what := f.misfit(s, listed[s.ID]); what != "" {
					mu.Lock()
					unfit[s] = what + "; " + s.history()
					mu.Unlock()
				}
			}
		})
	}
	for _, s := range subjects {
		work <- s
	}
	close(work)
	all.Wait()
	return unfit
}

// misfit says how a key differs from what was acknowledged, or "".
func (f *fleet) misfit(s *subject, shown *managed) string {
	exists, _ := s.has(toExist)
	used, _ := s.has(toBeUsed)
	writes, _ := s.has(toWrite)
	switch {
	case exists != (shown != nil):
		return fmt.Sprintf("%s exists: %t, and is listed: %t", s.ID, exists, shown != nil)
	case exists && used != shown.IsActive:
		return fmt.Sprintf("%s is enabled: %t, and is listed as %t", s.ID, used, shown.IsActive)
	case exists && writes != slices.Contains(shown.Permissions, "serp_api:write"):
		return fmt.Sprintf("%s writes: %t, and is listed with %v", s.ID, writes, shown.Permissions)
	}
	for node := range f.gateways {
		for _, writing := range []bool{false, true} {
			want := exists && used && (writes || !writing)
			if got := f.try(context.Background(), node, s, writing); got != want {
				return fmt.Sprintf("%s at node %d, writing %t: passes %t, want %t", s.ID, node, writing, got, want)
			}
		}
	}
	return ""
}

// listed are the keys of all accounts as one node lists them.
func (f *fleet) listed() (map[string]*managed, error) {
	all := map[string]*managed{}
	for account := range f.roots {
		for cursor := ""; ; {
			got := f.manage(context.Background(), account, account%len(f.gateways), http.MethodGet, keysPath+"?limit=1000&cursor="+url.QueryEscape(cursor), nil)
			var page struct {
				Data       []managed
				NextCursor *string `json:"next_cursor"`
			}
			if got.err != nil || got.status != http.StatusOK {
				return nil, fmt.Errorf("listing: %d %s, %w", got.status, got.body, got.err)
			}
			if err := json.Unmarshal(got.body, &page); err != nil {
				return nil, err
			}
			for i := range page.Data {
				all[page.Data[i].ID] = &page.Data[i]
			}
			if page.NextCursor == nil {
				break
			}
			cursor = *page.NextCursor
		}
	}
	return all, nil
}
