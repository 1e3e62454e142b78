package dashboard

import (
	"cmp"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

const (
	// auditPage is how many events one page shows.
	auditPage = 30
	// auditLooks is how often a page looks further where a filter passes over
	// thousands of events; then it offers to go on.
	auditLooks = 5
	// maxSuggested is how many keys the filter suggests.
	maxSuggested = 100
)

// auditRoutes are the audit log and its exports.
func (d *Dashboard) auditRoutes() []*route {
	return []*route{
		{pattern: "GET " + auditPath, needs: policy.ReadAudit, answer: d.showAudit},
		{pattern: "GET " + auditPath + "/events.csv", needs: policy.ReadAudit, answer: d.exportCSV},
		{pattern: "GET " + auditPath + "/events.json", needs: policy.ReadAudit, answer: d.exportJSON},
	}
}

// auditContent is the audit log, as its page shows it.
type auditContent struct {
	Filter  auditFilter
	Keys    []option // suggestions for the filter
	Actions []optionGroup
	Recent  []auditSpan
	Events  []eventView
	// Older leads to the next page, Newest back to the first one; "" for none.
	Older, Newest string
	CSV, JSON     string
	ExportLimit   int64
}

// auditSpan is a choice of time that is often wanted.
type auditSpan struct {
	Label, Link string
	Current     bool
}

// showAudit lists what happened in the account, the newest first.
func (d *Dashboard) showAudit(v *visit) error {
	q := v.r.URL.Query()
	n := d.newNaming(v)
	f, err := readAuditFilter(n, q)
	if errors.Is(err, errTokenSearched) {
		return v.redirect(f.withoutToken())
	}
	if err != nil {
		return err
	}
	content := auditContent{Filter: f, Actions: actionOptions(), Recent: d.auditSpans(f), ExportLimit: int64(d.o.ExportLimit)}
	if content.Keys, err = n.suggestions(); err != nil {
		return err
	}
	p := page{name: "audit", title: "Audit log", current: auditPath, scripts: []string{"audit.js"}}
	if len(f.Errors) > 0 {
		p.status, p.content = http.StatusUnprocessableEntity, content
		return d.show(v, p)
	}
	cursor := q.Get("cursor")
	events, next, err := d.eventsPage(v, f.filter, cursor, auditPage)
	if err != nil {
		return err
	}
	if content.Events, err = d.viewEvents(n, events); err != nil {
		return err
	}
	if next != "" {
		content.Older = auditLink("", f.query(next))
	}
	if cursor != "" {
		content.Newest = auditLink("", f.query(""))
	}
	content.CSV, content.JSON = auditLink("/events.csv", f.query("")), auditLink("/events.json", f.query(""))
	p.content = content
	return d.show(v, p)
}

func auditLink(below, query string) string {
	if query == "" {
		return auditPath + below
	}
	return auditPath + below + "?" + query
}

// eventsPage reads a page of events, and looks further where one is not full.
func (d *Dashboard) eventsPage(v *visit, f keystore.EventFilter, cursor string, limit int) ([]keystore.Event, string, error) {
	var all []keystore.Event
	for range auditLooks {
		events, next, err := d.o.Store.AuditLog(v.r.Context(), v.account.ID, f, cursor, limit-len(all))
		if err != nil {
			return nil, "", err
		}
		all, cursor = append(all, events...), next
		if next == "" || len(all) == limit {
			break
		}
	}
	return all, cursor, nil
}

func (d *Dashboard) viewEvents(n *naming, events []keystore.Event) ([]eventView, error) {
	views := make([]eventView, 0, len(events))
	for _, e := range events {
		view, err := n.tell(e)
		if err != nil {
			return nil, err
		}
		view.showChanges(d, e, n.v.account)
		views = append(views, view)
	}
	return views, nil
}

// auditSpans offers the time that is often wanted, from now backwards.
func (d *Dashboard) auditSpans(f auditFilter) []auditSpan {
	spans := []auditSpan{}
	for _, s := range []struct {
		label string
		long  time.Duration
	}{{"Last 24 hours", 24 * time.Hour}, {"7 days", 7 * 24 * time.Hour}, {"30 days", 30 * 24 * time.Hour}, {"All", 0}} {
		of := f
		of.From, of.Until = "", ""
		if s.long > 0 {
			of.From = d.o.Now().UTC().Add(-s.long).Format(auditTimes()[0])
		}
		spans = append(spans, auditSpan{s.label, auditLink("", of.query("")), of.From == f.From && f.Until == ""})
	}
	return spans
}

// suggestions are the newest keys for the filter.
func (n *naming) suggestions() ([]option, error) {
	all, err := n.allKeys()
	if err != nil {
		return nil, err
	}
	newest := slices.SortedFunc(func(yield func(policy.Key) bool) {
		for _, k := range all {
			if !yield(k) {
				return
			}
		}
	}, func(a, b policy.Key) int { return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(a.ID, b.ID)) })
	suggested := []option{}
	for _, k := range newest[:min(len(newest), maxSuggested)] {
		suggested = append(suggested, option{string(k.ID), k.Name + " · " + k.Preview})
	}
	return suggested, nil
}

// auditOf leads to the events of a key.
func auditOf(id policy.KeyID) string { return auditLink("", url.Values{"key": {string(id)}}.Encode()) }
