package keystore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// trail returns the account's events, read in pages of that size.
func (n *node) trail(account policy.AccountID, f keystore.EventFilter, limit int) []keystore.Event {
	n.t.Helper()
	var all []keystore.Event
	for cursor := ""; ; {
		page, next, err := n.AuditLog(n.t.Context(), account, f, cursor, limit)
		if err != nil {
			n.t.Fatal(err)
		}
		if len(page) > limit || (next != "" && len(page) < limit) {
			n.t.Fatalf("a page of %d has %d events, and another behind it: %v", limit, len(page), next != "")
		}
		all = append(all, page...)
		if next == "" {
			return all
		}
		cursor = next
	}
}

// told spells an event as one line.
func told(e keystore.Event) string {
	var changes []string
	for _, c := range e.Changes {
		changes = append(changes, fmt.Sprintf("%s %s→%s", c.Field, c.Old, c.New))
	}
	return strings.Join([]string{string(e.Action), string(e.Actor.Kind), e.Outcome, strings.Join(changes, "; ")}, " | ")
}

func tell(events []keystore.Event) []string {
	lines := []string{}
	for _, e := range events {
		lines = append(lines, told(e))
	}
	return lines
}

func TestEveryChangeIsInTheTrail(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		person.Person, person.RequestID = policy.Actor{Kind: policy.ActorCLI, ID: "ada"}, "request-1"
		manager, token := n.key(person, func(k *keystore.NewKey) { k.Name = "manager" })
		by := n.caller(token)
		k, _ := n.key(by, func(k *keystore.NewKey) {
			k.Name, k.Permissions, k.Expiry = "ci", policy.NewPermissionSet(read), policy.ExpiresAt(w.clock.Now().Unix()+3600)
		})
		n.update(by, k.ID, keystore.Update{Name: ptr("ci 2"), Addresses: ptr(policy.OnlyAddresses(office))})
		next, _, err := n.Regenerate(t.Context(), by, k.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Revoke(t.Context(), by, next.ID); err != nil {
			t.Fatal(err)
		}
		n.account("acme", func(a *keystore.Account) { a.Status = policy.Suspended })

		expires := fmt.Sprint(w.clock.Now().Unix() + 3600)
		events := n.trail("acme", keystore.EventFilter{}, 100)
		want := []string{
			`account.put | operator | done | status "active"→"suspended"`,
			`key.revoke | key | done | name "ci 2"→null; permissions ["proxies:read"]→null; allowed_subaccounts []→null; allowed_ips ["203.0.113.0/24"]→null; expires_at ` + expires + `→null; is_active true→null`,
			`key.regenerate | key | done | id "` + string(k.ID) + `"→"` + string(next.ID) + `"; token_preview "` + k.Preview + `"→"` + next.Preview + `"`,
			`key.update | key | done | name "ci"→"ci 2"; allowed_ips []→["203.0.113.0/24"]`,
			`key.create | key | done | name null→"ci"; permissions null→["proxies:read"]; allowed_subaccounts null→[]; allowed_ips null→[]; expires_at null→` + expires + `; is_active null→true`,
		}
		if diff := cmp.Diff(want, tell(events)[:len(want)]); diff != "" {
			t.Errorf("the trail (-want +got):\n%s", diff)
		}
		if len(events) != len(want)+2 {
			t.Errorf("%d events, want %d", len(events), len(want)+2)
		}
		made := events[len(want)]
		if made.Actor != (policy.Actor{Kind: policy.ActorCLI, ID: "ada"}) || made.RequestID != "request-1" || made.Key != manager.ID || made.Account != "acme" ||
			made.Client != inside || !made.At.Equal(w.clock.Now()) {
			t.Errorf("got %+v", made)
		}
		if events[2].Actor.ID != string(manager.ID) || events[2].Key != k.ID {
			t.Errorf("got %+v", events[2])
		}
		for _, e := range events {
			if strings.Contains(fmt.Sprint(e), token.Reveal()) {
				t.Error("an event has a token")
			}
		}
		for limit := 1; limit < 9; limit++ {
			if diff := cmp.Diff(tell(events), tell(n.trail("acme", keystore.EventFilter{}, limit))); diff != "" {
				t.Errorf("pages of %d:\n%s", limit, diff)
			}
		}
	})
}

func TestTrailIsFiltered(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		k, _ := n.key(person)
		w.clock.Advance(time.Hour)
		from := w.clock.Now()
		n.update(person, k.ID, keystore.Update{Name: ptr("b")})
		n.key(person)
		n.Refused(t.Context(), person, keystore.KeyRevoke, k.ID, "permission_denied")
		w.clock.Advance(time.Hour)
		to := w.clock.Now()
		n.update(person, k.ID, keystore.Update{Name: ptr("c")})
		for name, test := range map[string]struct {
			filter keystore.EventFilter
			want   int
		}{
			"all":       {keystore.EventFilter{}, 6},
			"a key":     {keystore.EventFilter{Key: k.ID}, 4},
			"an action": {keystore.EventFilter{Action: keystore.KeyUpdate}, 2},
			"done":      {keystore.EventFilter{Outcome: keystore.Done}, 5},
			"refused":   {keystore.EventFilter{Outcome: keystore.NotDone}, 1},
			"a code":    {keystore.EventFilter{Outcome: "permission_denied"}, 1},
			"no code":   {keystore.EventFilter{Outcome: "key_in_use"}, 0},
			"from":      {keystore.EventFilter{From: from}, 4},
			"to":        {keystore.EventFilter{To: from}, 2},
			"between":   {keystore.EventFilter{From: from, To: to}, 3},
			"together":  {keystore.EventFilter{From: from, To: to, Key: k.ID, Action: keystore.KeyUpdate}, 1},
			"nothing":   {keystore.EventFilter{Key: "nobody"}, 0},
		} {
			for _, limit := range []int{1, 2, 100} {
				if got := n.trail("acme", test.filter, limit); len(got) != test.want {
					t.Errorf("%s in pages of %d: %q, want %d", name, limit, tell(got), test.want)
				}
			}
		}
	})
}

// A key that was made in a regeneration has the id of no earlier event.
func TestTrailOfAKeyBeginsWithWhatMadeIt(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		k, _ := n.key(person)
		next, _, err := n.Regenerate(t.Context(), person, k.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		n.update(person, next.ID, keystore.Update{Name: ptr("b")})
		for id, want := range map[policy.KeyID][]keystore.Action{
			k.ID:    {keystore.KeyRegenerate, keystore.KeyCreate},
			next.ID: {keystore.KeyUpdate, keystore.KeyRegenerate},
		} {
			var got []keystore.Action
			for _, e := range n.trail("acme", keystore.EventFilter{Key: id}, 10) {
				got = append(got, e.Action)
			}
			if !slices.Equal(got, want) {
				t.Errorf("the trail of %s is %v, want %v", id, got, want)
			}
		}
	})
}

func TestRefusalsAreInTheTrail(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(func(o *keystore.Options) { o.Audit.Events = 10 })
		person := n.account("acme")
		k, token := n.key(person)
		by := n.caller(token)
		by.RequestID = "r"
		// However often a key fails, what was done stays.
		for range 30 {
			n.Refused(t.Context(), by, keystore.KeyUpdate, "not a key's id", "exceeds_your_access")
		}
		events := n.trail("acme", keystore.EventFilter{}, 3)
		if len(events) != 12 {
			t.Errorf("%d events, want 10 refusals and 2 changes", len(events))
		}
		first := events[0]
		if first.Outcome != "exceeds_your_access" || first.Key != "" || first.Actor.ID != string(k.ID) || first.RequestID != "r" || first.Account != "acme" {
			t.Errorf("got %+v", first)
		}
		n.Refused(t.Context(), policy.Caller{}, keystore.AccountPut, "", "validation_failed")
		n.Refused(t.Context(), policy.Caller{Account: &policy.Account{ID: "nobody"}}, keystore.AccountPut, "", "validation_failed")
		if got := n.trail("nobody", keystore.EventFilter{Predecessors: true}, 10); len(got) != 0 {
			t.Errorf("an account that does not exist has the trail %q", tell(got))
		}
	})
}

func TestTrailIsCapped(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node(func(o *keystore.Options) { o.Audit = keystore.AuditKeep{Events: 5, Age: 24 * time.Hour} })
		person := n.account("acme")
		k, _ := n.key(person)
		for i := range 8 {
			n.update(person, k.ID, keystore.Update{Name: ptr(fmt.Sprint(i))})
		}
		events := n.trail("acme", keystore.EventFilter{}, 100)
		if len(events) != 5 || told(events[4]) != `key.update | operator | done | name "2"→"3"` {
			t.Errorf("got %q", tell(events))
		}
		w.clock.Advance(25 * time.Hour)
		if got := n.trail("acme", keystore.EventFilter{}, 100); len(got) != 0 {
			t.Errorf("events that are too old are shown: %q", tell(got))
		}
	})
}

// The next account of a deleted one's id does not see what the first one did;
// the operator does.
func TestTrailOutlivesItsAccount(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		n.key(n.account("acme"))
		if err := n.DeleteAccount(t.Context(), policy.Caller{}, "acme"); err != nil {
			t.Fatal(err)
		}
		_, _, err := n.AuditLog(t.Context(), "acme", keystore.EventFilter{}, "", 10)
		wantErr(t, err, keystore.ErrNotFound)
		n.account("acme")
		if got := tell(n.trail("acme", keystore.EventFilter{}, 10)); len(got) != 1 || !strings.HasPrefix(got[0], "account.put") {
			t.Errorf("the new account sees %q", got)
		}
		var actions []string
		for _, e := range n.trail("acme", keystore.EventFilter{Predecessors: true}, 10) {
			actions = append(actions, string(e.Action))
		}
		if want := []string{"account.put", "account.delete", "key.create", "account.put"}; !slices.Equal(actions, want) {
			t.Errorf("the operator sees %v, want %v", actions, want)
		}
	})
}

// Of an embedded store's trail the same is there, in the same order and under
// the same cursors, when it was opened again.
func TestTrailIsInTheFile(t *testing.T) {
	w := newWorld(t, "embedded")
	n := w.open()
	person := n.account("acme")
	k, _ := n.key(person)
	n.Refused(t.Context(), person, keystore.KeyRevoke, k.ID, "permission_denied")
	n.update(person, k.ID, keystore.Update{Name: ptr("b")})
	before := n.trail("acme", keystore.EventFilter{}, 10)
	_, cursor, err := n.AuditLog(t.Context(), "acme", keystore.EventFilter{}, "", 2)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Close(); err != nil {
		t.Fatal(err)
	}
	again := w.node()
	if diff := cmp.Diff(tell(before), tell(again.trail("acme", keystore.EventFilter{}, 10))); diff != "" || len(before) != 4 {
		t.Errorf("read back (-before +after):\n%s", diff)
	}
	rest, _, err := again.AuditLog(t.Context(), "acme", keystore.EventFilter{}, cursor, 10)
	if diff := cmp.Diff(tell(before[2:]), tell(rest)); err != nil || diff != "" {
		t.Errorf("behind the cursor: %v\n%s", err, diff)
	}
	again.update(person, k.ID, keystore.Update{Name: ptr("c")}) // its id comes behind those that were read
	if got := again.trail("acme", keystore.EventFilter{}, 10); len(got) != 5 || told(got[0]) != `key.update | operator | done | name "b"→"c"` {
		t.Errorf("got %q", tell(got))
	}
}

func TestBadAuditCursorIsRefused(t *testing.T) {
	w := newWorld(t, "miniredis")
	n := w.node()
	n.account("acme")
	for _, cursor := range []string{"x", "0", "0.", "0.1", "2.1-1", "-1.1-1", "0.1-1-1", "00.1-1", "0.01-1", "0.1-99999999999999999999", " 0.1-1", "0.+ -"} {
		_, _, err := n.AuditLog(t.Context(), "acme", keystore.EventFilter{}, cursor, 10)
		wantErr(t, err, keystore.ErrBadCursor)
	}
}

// However often changes get into one another's way, each one that was
// acknowledged is in the trail once, and none that was not.
func TestTrailHasWhatWasAcknowledged(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		other := n.second()
		person := n.account("acme")
		k, _ := n.key(person)
		const workers, each = 6, 6
		done := make(chan []string, workers)
		for i := range workers {
			go func() {
				at := []*node{n, other}[i%2]
				var acknowledged []string
				for j := range each {
					name := fmt.Sprintf("name %d %d", i, j)
					if _, _, err := at.Update(t.Context(), person, k.ID, keystore.Update{Name: &name}); err == nil {
						acknowledged = append(acknowledged, name)
					}
				}
				done <- acknowledged
			}()
		}
		var want, got []string
		for range workers {
			want = append(want, <-done...)
		}
		last := `"` + k.Name + `"`
		events := n.trail("acme", keystore.EventFilter{Action: keystore.KeyUpdate}, 100)
		slices.Reverse(events)
		for _, e := range events {
			if string(e.Changes[0].Old) != last {
				t.Errorf("%s follows on %s: a change is missing or in another place", told(e), last)
			}
			last = string(e.Changes[0].New)
			got = append(got, strings.Trim(last, `"`))
		}
		slices.Sort(want)
		slices.Sort(got)
		if diff := cmp.Diff(want, got); diff != "" || len(want) < each {
			t.Errorf("acknowledged and not in the trail (-), in it and not acknowledged (+):\n%s", diff)
		}
	})
}

// Doing nothing is no event: or it could push out what was done.
func TestUpdateOfNothingIsNoEvent(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		k, _ := n.key(person)
		n.update(person, k.ID, keystore.Update{})
		n.update(person, k.ID, keystore.Update{Name: ptr(k.Name), Active: ptr(true)})
		if got := n.trail("acme", keystore.EventFilter{}, 10); len(got) != 2 {
			t.Errorf("got %q", tell(got))
		}
	})
}

// One event with a wrong time, or of another version, hides no other one.
func TestStrangeEventsHideNoOthers(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		person := n.account("acme")
		n.key(person)
		w.clock.Advance(-500 * 24 * time.Hour)
		n.key(person, func(k *keystore.NewKey) { k.Expiry = policy.NeverExpires() })
		w.clock.Advance(500 * 24 * time.Hour)
		stranger := redis.XAddArgs{Stream: w.options.Prefix + "account:{acme}:audit", Values: []string{"event", `{"v":99}`}}
		if err := keystore.ClientOf(n.Store).XAdd(t.Context(), &stranger).Err(); err != nil {
			t.Fatal(err)
		}
		if got := n.trail("acme", keystore.EventFilter{}, 10); len(got) != 2 {
			t.Errorf("got %q", tell(got))
		}
	})
}

// However rare what is wanted is, one call looks at a bounded number of events,
// and the next one goes on.
func TestRareEventsAreFoundInSeveralCalls(t *testing.T) {
	w := newWorld(t, "redis")
	n := w.node()
	person := n.account("acme")
	k, _ := n.key(person)
	for i := range 2100 {
		n.update(person, k.ID, keystore.Update{Active: ptr(i%2 == 1)})
	}
	found, calls := 0, 0
	for cursor := ""; ; calls++ {
		page, next, err := n.AuditLog(t.Context(), "acme", keystore.EventFilter{Action: keystore.KeyCreate}, cursor, 10)
		if err != nil {
			t.Fatal(err)
		}
		if found += len(page); next == "" {
			break
		}
		cursor = next
	}
	if found != 1 || calls != 1 {
		t.Errorf("%d events in %d further calls, want 1 in 1", found, calls)
	}
}
