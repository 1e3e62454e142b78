package dashboard_test

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/go-json-experiment/json"
	"github.com/google/go-cmp/cmp"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/dashboard"
)

func rowsOf(t *testing.T, a answer) [][]string {
	t.Helper()
	rows, err := csv.NewReader(strings.NewReader(a.body)).ReadAll()
	if err != nil {
		t.Fatalf("%v: %s", err, a.body)
	}
	return rows
}

func TestExportIsAFile(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.signIn()
	for format, mediaType := range map[string]string{"csv": "text/csv; charset=utf-8; header=present", "json": "application/json"} {
		a := s.get("/dashboard/audit/events." + format)
		want := `attachment; filename="audit-acme-` + s.clock().Format("20060102T150405Z") + "." + format + `"`
		if a.status != http.StatusOK || a.header.Get("Content-Type") != mediaType || a.header.Get("Content-Disposition") != want ||
			a.header.Get("Cache-Control") != "no-store" || a.header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s got %d with %v", format, a.status, a.header)
		}
		if head := s.do("HEAD", "/dashboard/audit/events."+format, nil); head.status != http.StatusOK || head.header.Get("Content-Disposition") != want {
			t.Errorf("HEAD %s got %d with %v", format, head.status, head.header)
		}
	}
}

func TestExportAsJSONIsWhatTheAPIAnswers(t *testing.T) {
	t.Parallel()
	h := startHistory(t)
	h.signIn()
	events, _, err := h.store.AuditLog(t.Context(), "acme", keystore.EventFilter{Users: true}, "", 100)
	h.must(err)
	want, err := json.Marshal(contract.PageOf(events, contract.ShowEvent, ""))
	h.must(err)
	var got, wanted any
	h.must(json.Unmarshal([]byte(h.get("/dashboard/audit/events.json").body), &got))
	h.must(json.Unmarshal(want, &wanted))
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if none := h.get("/dashboard/audit/events.json?from=2020-01-01&until=2020-01-02").body; strings.Join(strings.Fields(none), "") != `{"success":true,"data":[],"next_cursor":null}` {
		t.Errorf("of no events there is %s", none)
	}
}

func TestExportAsCSV(t *testing.T) {
	t.Parallel()
	h := startHistory(t)
	h.signIn()
	rows := rowsOf(t, h.get("/dashboard/audit/events.csv?key="+string(h.key.ID)))
	if len(rows) != 6 {
		t.Fatalf("%d rows: %q", len(rows), rows)
	}
	got := map[string]string{}
	for i, column := range rows[0] {
		got[column] = rows[4][i]
	}
	want := map[string]string{
		"time": h.clock().Add(-7 * hour).Format("2006-01-02T15:04:05Z"), "event": "Ada changed the key CI 2", "action": "key.update", "outcome": "done",
		"actor_kind": "session", "actor_id": string(h.user.ID), "actor": "Ada <ada@example.com>", "address": clientIP,
		"key_id": string(h.key.ID), "key": "CI 2", "user_id": "", "user": "", "request_id": "request-0", "id": got["id"],
		"changes": `[{"field":"name","old":"CI","new":"CI 2"},{"field":"permissions","old":["datacenter_shared:read","account:apikeys:create","account:apikeys:update"],` +
			`"new":["datacenter_shared:read","datacenter_shared:write","account:apikeys:update"]},{"field":"allowed_ips","old":[],"new":["203.0.113.0/24"]},{"field":"expires_at","old":null,"new":1893456000}]`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestExportHoldsNoFormulas: a spreadsheet that opens an export computes nothing
// of what somebody has called a key.
func TestExportHoldsNoFormulas(t *testing.T) {
	t.Parallel()
	exported := map[string]string{
		"=1+1":                  "'=1+1",
		"+1":                    "'+1",
		"-1":                    "'-1",
		"@SUM(A1)":              "'@SUM(A1)",
		"\t=1":                  "'\t=1",
		"\r=1":                  "'=1",
		"\n=1":                  "'\n=1",
		"＝1":                    "'＝1",
		" =1":                   "' =1",
		`=HYPERLINK("//x","y")`: `'=HYPERLINK("//x","y")`,
		"a;=1":                  "a;'=1",
		`a"; =1`:                `a";' =1`,
		"CI, staging":           "CI, staging",
		"a-b=c+d@e":             "a-b=c+d@e",
		`"quoted"`:              `"quoted"`,
		"two\nlines":            "two\nlines",
	}
	names := slices.Sorted(maps.Keys(exported))
	s := start(t, func(s *site) {
		s.wrap = func(store dashboard.Store) dashboard.Store {
			return &endless{Store: store, events: len(names), key: policy.KeyID("11111111-1111-4111-8111-111111111111"), names: names}
		}
	})
	s.signIn()
	rows := rowsOf(t, s.get("/dashboard/audit/events.csv"))[1:]
	if len(rows) != len(names) {
		t.Fatalf("of %d events %d are exported", len(names), len(rows))
	}
	for i, name := range names {
		if got := rows[i][9]; got != exported[name] {
			t.Errorf("%q is exported as %q, want %q", name, got, exported[name])
		}
	}
}

// endless is a store with so many revocations of keys in its trail that nobody
// could make them in a test, and that can fail in the middle.
type endless struct {
	dashboard.Store
	events, failAt int
	key            policy.KeyID
	names          []string // of the keys, in turn
}

var errStore = errors.Join(keystore.ErrUnavailable, errors.New("connection refused"))

func (e *endless) AuditLog(_ context.Context, _ policy.AccountID, _ keystore.EventFilter, cursor string, limit int) ([]keystore.Event, string, error) {
	from, _ := strconv.Atoi(cursor)
	if e.failAt > 0 && from >= e.failAt {
		return nil, "", errStore
	}
	to := min(from+limit, e.events)
	list := make([]keystore.Event, 0, to-from)
	for n := range to - from {
		name := []byte(`""`)
		if len(e.names) > 0 {
			var err error
			if name, err = json.Marshal(e.names[(from+n)%len(e.names)]); err != nil {
				return nil, "", err
			}
		}
		list = append(list, keystore.Event{
			ID: strconv.Itoa(from + n), Action: keystore.KeyRevoke, Outcome: keystore.Done, Key: e.key, Account: "acme",
			Changes: []keystore.FieldChange{{Field: "name", Old: name, New: []byte("null")}},
		})
	}
	if to == e.events {
		return list, "", nil
	}
	return list, strconv.Itoa(to), nil
}

// TestExportIsBounded, and says so.
func TestExportIsBounded(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		events, rows int
		whole        bool
	}{{1100, 1100, true}, {1101, 1100, false}} {
		s := start(t, func(s *site) {
			s.change = func(o *dashboard.Options) { o.ExportLimit = 1100 }
			s.wrap = func(store dashboard.Store) dashboard.Store { return &endless{Store: store, events: test.events} }
		})
		s.signIn()
		rows := rowsOf(t, s.get("/dashboard/audit/events.csv"))[1:]
		last := rows[len(rows)-1][0]
		if !test.whole {
			rows = rows[:len(rows)-1]
		}
		if said := strings.HasPrefix(last, "Not complete: an export holds 1,100 events."); len(rows) != test.rows || said == test.whole {
			t.Errorf("of %d events %d are exported, and the last row begins with %q", test.events, len(rows), last)
		}
		var page struct {
			Data       []contract.Event `json:"data"`
			NextCursor *string          `json:"next_cursor"`
		}
		s.must(json.Unmarshal([]byte(s.get("/dashboard/audit/events.json").body), &page))
		if len(page.Data) != test.rows || (page.NextCursor == nil) != test.whole {
			t.Errorf("of %d events %d are exported as JSON, with the cursor %v", test.events, len(page.Data), page.NextCursor)
		}
		if page.NextCursor != nil {
			rest := rowsOf(t, s.get("/dashboard/audit/events.csv?"+url.Values{"cursor": {*page.NextCursor}}.Encode()))
			if len(rest) != 2 || rest[1][14] != fmt.Sprint(test.rows) {
				t.Errorf("behind the cursor is %q", rest)
			}
		}
	}
}

// TestHalfAnExportIsNoFile: where the store fails in the middle, the connection
// is broken off; where it fails at once, there is a page that says so.
func TestHalfAnExportIsNoFile(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"csv", "json"} {
		var failing *endless
		s := start(t, func(s *site) {
			s.wrap = func(store dashboard.Store) dashboard.Store {
				failing = &endless{Store: store, events: 2000, failAt: 1000}
				return failing
			}
		})
		s.signIn()
		r, err := http.NewRequestWithContext(t.Context(), "GET", s.server.URL+"/dashboard/audit/events."+format, nil)
		s.must(err)
		res, err := s.browser.Do(r)
		if err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			s.must(res.Body.Close())
		}
		if err == nil {
			t.Errorf("half an export as %s came to an end", format)
		}
		if p := s.refused.Load(); p == nil || p.Code != "key_store_unavailable" {
			t.Errorf("the record has %v", p)
		}
		failing.events = 0
	}
	s := start(t, func(s *site) {
		s.wrap = func(store dashboard.Store) dashboard.Store { return &broken{store} }
	})
	s.signIn()
	for _, path := range []string{"/dashboard/audit", "/dashboard/audit/events.csv", "/dashboard/audit/events.json"} {
		if a := s.get(path); a.status != http.StatusServiceUnavailable || a.header.Get("Content-Disposition") != "" {
			t.Errorf("%s got %d with %v", path, a.status, a.header)
		}
	}
}

// broken is a store whose trail cannot be read.
type broken struct{ dashboard.Store }

func (*broken) AuditLog(context.Context, policy.AccountID, keystore.EventFilter, string, int) ([]keystore.Event, string, error) {
	return nil, "", errStore
}
