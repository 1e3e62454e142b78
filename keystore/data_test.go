package keystore_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

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
