package contract_test

import (
	"net/url"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/proxy/contract"
)

// FuzzQueries: what is accepted is bounded, and says the same when it is
// written out again.
func FuzzQueries(f *testing.F) {
	for _, s := range []string{
		"", "limit=1&cursor=MTox", "key=" + subA + "&action=key.create&from=1&to=2", "limit=1&limit=2", "limit=%31", "a;b", "%zz", "from=-1", "key=\xff", "=&=", "%ff=1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, query string) {
		limit, cursor, err := contract.ReadPage(query)
		if err != nil {
			checkRefused(t, err)
		} else if limit < 1 || limit > 1000 {
			t.Errorf("accepted the limit %d and the cursor %q", limit, cursor)
		}
		filter, limit, cursor, eventErr := contract.ReadEventQuery(query)
		if eventErr != nil {
			checkRefused(t, eventErr)
			if err == nil {
				t.Errorf("a page of keys may be asked for so, and one of events not: %v", eventErr)
			}
			return
		}
		if limit < 1 || limit > 1000 || filter.Predecessors || filter.Key != "" && !contract.IsKeyID(string(filter.Key)) {
			t.Errorf("accepted as %+v, %d", filter, limit)
		}
		again := url.Values{"limit": {strconv.Itoa(limit)}, "cursor": {cursor}}
		for name, value := range map[string]string{"key": string(filter.Key), "action": string(filter.Action), "from": unix(filter.From), "to": unix(filter.To)} {
			if value != "" {
				again.Set(name, value)
			}
		}
		second, secondLimit, secondCursor, err := contract.ReadEventQuery(again.Encode())
		if diff := cmp.Diff(filter, second); err != nil || diff != "" || secondLimit != limit || secondCursor != cursor {
			t.Errorf("%v, %d, %q (-first +second):\n%s", err, secondLimit, secondCursor, diff)
		}
	})
}

func unix(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return strconv.FormatInt(at.Unix(), 10)
}
