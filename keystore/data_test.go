package keystore_test

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"gatehouse/keystore"
)

// fillSet adds members to a sorted set, in portions.
func (n *node) fillSet(set string, members []keystore.Member) {
	n.t.Helper()
	for portion := range slices.Chunk(members, 500) {
		var steps []keystore.Step
		for _, m := range portion {
			steps = append(steps, keystore.Step{Kind: keystore.StepZAdd, Key: set, Field: m.Name, Value: fmt.Sprint(m.Score)})
		}
		if err := keystore.CommitTo(n.t.Context(), n.Store, nil, steps); err != nil {
			n.t.Fatal(err)
		}
	}
}

// A sorted set is read in portions of any size, whatever members have the same
// score, and also from one that is not there any more.
func TestSortedSetInPortions(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		n := w.node()
		random := rand.New(rand.NewPCG(1, 2))
		set := w.options.Prefix + "a set"
		n.fillSet(w.options.Prefix+"a se", []keystore.Member{{Name: "x", Score: 1}})
		n.fillSet(w.options.Prefix+"a set2", []keystore.Member{{Name: "x", Score: 1}})
		var all []keystore.Member
		for i := range 700 {
			score := int64(1_700_000_000_000) // as many of one millisecond as of all others
			if i%2 == 0 {
				score += int64(random.IntN(200)) - 100
			}
			all = append(all, keystore.Member{Name: fmt.Sprintf("m%d", random.Int()), Score: score})
		}
		n.fillSet(set, all)
		slices.SortFunc(all, func(a, b keystore.Member) int {
			return cmp.Or(cmp.Compare(b.Score, a.Score), cmp.Compare(b.Name, a.Name))
		})
		for _, size := range []int{1, 3, 100, 699, 700, 999} {
			var got []keystore.Member
			for after := (*keystore.Member)(nil); ; {
				page, err := keystore.Members(t.Context(), n.Store, set, after, size)
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, page...)
				if len(page) < size {
					break
				}
				after = &page[size-1]
			}
			if diff := gocmp.Diff(all, got); diff != "" {
				t.Errorf("portions of %d (-want +got):\n%s", size, diff)
			}
		}
		for _, at := range []int{0, 1, 350, 698} {
			gone := keystore.Step{Kind: keystore.StepZRem, Key: set, Field: all[at].Name}
			if err := keystore.CommitTo(t.Context(), n.Store, nil, []keystore.Step{gone}); err != nil {
				t.Fatal(err)
			}
			page, err := keystore.Members(t.Context(), n.Store, set, &all[at], 1)
			if want := all[at+1 : at+2]; err != nil || !slices.Equal(page, want) {
				t.Errorf("behind one that has gone: got %v, %v, want %v", page, err, want)
			}
		}
	})
}

// Random changes do the same in the file as in Redis.
func TestEmbeddedCommitsAsRedisDoes(t *testing.T) {
	n := newWorld(t, "embedded").node()
	client := redis.NewClient(&redis.Options{Addr: theRedis(t).addr, Protocol: 2})
	defer func() { _ = client.Close() }()
	p := fmt.Sprintf("commit%d:", prefixes.Add(1))
	random := rand.New(rand.NewPCG(5, 6))
	pick := func(of ...string) string { return of[random.IntN(len(of))] }
	end, ids := time.Now().Unix()+1000, 1000
	newStep := func() keystore.Step {
		switch random.IntN(9) {
		case 0:
			return keystore.Step{Kind: keystore.StepSet, Key: p + pick("v1", "v2"), Value: pick("x", "y"), Ends: int64(random.IntN(2)) * end}
		case 1:
			return keystore.Step{Kind: keystore.StepSet, Key: p + pick("v1", "v2"), Value: pick("x", "y"), Ends: end - 2000} // it has ended
		case 2:
			return keystore.Step{Kind: keystore.StepDel, Key: p + pick("v1", "v2", "h1", "h2", "c", "s", "z")}
		case 3:
			return keystore.Step{Kind: keystore.StepHSet, Key: p + pick("h1", "h2"), Field: pick("a", "b", "c", "\x00", "a\x00b"), Value: pick("x", "y")}
		case 4:
			return keystore.Step{Kind: keystore.StepHDel, Key: p + pick("h1", "h2"), Field: pick("a", "b", "c", "\x00")}
		case 5:
			return keystore.Step{Kind: keystore.StepCount, Key: p + "c", Field: pick("a", "b"), Value: fmt.Sprint(random.IntN(5)), Ends: end - int64(random.IntN(8)/7)*2000}
		case 6:
			return keystore.Step{Kind: keystore.StepZAdd, Key: p + "z", Field: pick("a", "b", "ab"), Value: fmt.Sprint(random.IntN(5))}
		case 7:
			return keystore.Step{Kind: keystore.StepZRem, Key: p + "z", Field: pick("a", "b")}
		}
		ids += random.IntN(2000)
		return keystore.Step{Kind: keystore.StepXAdd, Key: p + "s", Field: fmt.Sprintf("%d-%d", ids, ids), Value: pick("x", "y"), Keep: 1 + random.IntN(5), Age: 1 + int64(random.IntN(5))}
	}
	outcomes := map[bool]int{}
	for range 500 {
		var guards []keystore.Guard
		var steps []keystore.Step
		for range random.IntN(3) {
			switch random.IntN(3) {
			case 0:
				guards = append(guards, keystore.Guard{Key: p + pick("h1", "h2"), Below: 1 + random.IntN(4)})
			case 1:
				guards = append(guards, keystore.Guard{Key: p + pick("h1", "c"), Has: pick("a", "b")})
			case 2:
				guards = append(guards, keystore.Guard{Key: p + pick("v1", "v2"), Want: pick("", "x", "y")})
			}
		}
		ids++
		for range random.IntN(5) {
			steps = append(steps, newStep())
			ids++
		}
		failed, err := keystore.RunScript(t.Context(), client, guards, steps)
		if err != nil {
			t.Fatal(err)
		}
		got := keystore.CommitTo(t.Context(), n.Store, guards, steps)
		want := error(nil)
		if failed > 0 {
			want = keystore.ErrMoved
			if guards[failed-1].Below > 0 {
				want = keystore.ErrKeyLimit
			}
		}
		if outcomes[want == nil]++; !errors.Is(got, want) {
			t.Fatalf("%+v: got %v, and Redis says %v", guards, got, want)
		}
		if diff := gocmp.Diff(dump(t, client, p), dump(t, keystore.ClientOf(n.Store), p)); diff != "" {
			t.Fatalf("after %+v (-redis +embedded):\n%s", steps, diff)
		}
	}
	if outcomes[true] < 100 || outcomes[false] < 50 {
		t.Errorf("the outcomes were %v", outcomes)
	}
	if _, err := n.reopen().Export(t.Context(), io.Discard); err != nil { // which looks at all of the file
		t.Error(err)
	}
}
