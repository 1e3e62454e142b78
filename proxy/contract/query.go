package contract

import (
	"maps"
	"net/url"
	"slices"
	"strconv"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

const (
	// maxPage is the most that one page of a listing holds, and what a page of
	// keys or accounts holds when the client does not say.
	maxPage = 1000
	// eventPage is what a page of the audit log holds then.
	eventPage = 100
)

// ReadPage reads the limit and cursor of a listing from a query, in which
// nothing else may stand.
func ReadPage(rawQuery string) (limit int, cursor string, err error) {
	q := query{limit: maxPage}
	err = q.read(rawQuery, nil)
	return q.limit, q.cursor, err
}

// ReadEventQuery reads which events of the audit log are asked for, in which
// nothing else may stand.
func ReadEventQuery(rawQuery string) (f keystore.EventFilter, limit int, cursor string, err error) {
	q := query{limit: eventPage}
	err = q.read(rawQuery, map[string]func(value string) (fault string){
		"key": func(value string) string {
			f.Key = policy.KeyID(value)
			return unless(IsKeyID(value), "The key must be the id of a key, a UUID.")
		},
		"action": func(value string) string {
			f.Action = keystore.Action(value)
			return unless(slices.Contains(keystore.Actions(), f.Action), "There is no such action.")
		},
		"from": func(value string) string { return readSecond(value, &f.From) },
		"to":   func(value string) string { return readSecond(value, &f.To) },
	})
	return f, q.limit, q.cursor, err
}

// IsKeyID reports whether s can be the id of a key: a UUID, in lower case.
func IsKeyID(s string) bool {
	id, err := policy.ParseSubaccountID(s) // a key's id is a UUID too
	return err == nil && string(id) == s
}

func readSecond(value string, at *time.Time) (fault string) {
	seconds, err := strconv.ParseInt(value, 10, 64)
	if err != nil || seconds < 0 || seconds >= endOfTime {
		return "The time must be a whole number of Unix seconds."
	}
	*at = time.Unix(seconds, 0)
	return ""
}

func unless(ok bool, fault string) string {
	if ok {
		return ""
	}
	return fault
}

// query is what stands in the query of a listing.
type query struct {
	limit  int
	cursor string
	// unpaged: there are no pages, so no limit and no cursor.
	unpaged bool
}

// read takes the limit, the cursor, and further parameters, each once.
func (q *query) read(rawQuery string, further map[string]func(value string) (fault string)) error {
	values, err := url.ParseQuery(rawQuery)
	if err != nil {
		return problem.New(problem.AmbiguousQuery, "The query of this request cannot be read.")
	}
	var wrong faults
	for _, name := range slices.Sorted(maps.Keys(values)) {
		take, known := further[name]
		switch value := values[name][0]; {
		case len(values[name]) > 1:
			wrong.add(shown(name), "The parameter is there more than once.")
		case name == "limit" && !q.unpaged:
			n, err := strconv.Atoi(value)
			if err != nil || n < 1 || n > maxPage {
				wrong.add("limit", "The limit must be a number from 1 to "+strconv.Itoa(maxPage)+".")
			}
			q.limit = n
		case name == "cursor" && !q.unpaged:
			q.cursor = value
		case known:
			if fault := take(value); fault != "" {
				wrong.add(name, fault)
			}
		default:
			wrong.add(shown(name), "There is no such parameter.")
		}
	}
	return wrong.err()
}
