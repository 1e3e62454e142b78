package dashboard

import (
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/go-json-experiment/json"

	"gatehouse/keystore"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

const (
	// exportLimit is the usual Options.ExportLimit.
	exportLimit = 50_000
	// exportPage is how many events are read, and held, at a time.
	exportPage = 1000
)

// exporter writes events in one format.
type exporter interface {
	begin() error
	event(e keystore.Event) error
	// end is given the cursor of what the export does not hold any more, and
	// when its last event was; "" for none.
	end(next string, last time.Time) error
}

func (d *Dashboard) exportCSV(v *visit) error {
	n := d.newNaming(v)
	return d.export(v, n, "csv", "text/csv; charset=utf-8; header=present", func(w io.Writer) exporter {
		rows := csv.NewWriter(w)
		rows.UseCRLF = true // RFC 4180 §2
		return &csvExporter{names: n, rows: rows, limit: d.o.ExportLimit}
	})
}

func (d *Dashboard) exportJSON(v *visit) error {
	return d.export(v, d.newNaming(v), "json", "application/json", func(w io.Writer) exporter { return &jsonExporter{w: w} })
}

// export streams the events that the filter wants, newest first, as a file.
func (d *Dashboard) export(v *visit, n *naming, format, mediaType string, to func(io.Writer) exporter) error {
	q := v.r.URL.Query()
	f, err := readAuditFilter(n, q)
	if errors.Is(err, errTokenSearched) {
		return v.redirect(f.withoutToken())
	}
	if err != nil {
		return err
	}
	if len(f.Errors) > 0 {
		return problem.New(problem.ValidationFailed, "The filter of this export cannot be understood. Set it on the page of the audit log.")
	}
	// What fails before the first byte is answered with a page.
	events, next, err := d.o.Store.AuditLog(v.r.Context(), v.account.ID, f.filter, q.Get("cursor"), exportPage)
	if err != nil {
		return err
	}
	if _, err := n.allKeys(); err != nil {
		return err
	}
	h := v.w.Header()
	h.Set("Content-Type", mediaType)
	h.Set("Content-Disposition", fmt.Sprintf(`attachment; filename="audit-%s-%s.%s"`, v.account.ID, d.o.Now().UTC().Format("20060102T150405Z"), format))
	if v.r.Method == http.MethodHead {
		return nil
	}
	if err := d.stream(v, f.filter, events, next, to(v.w)); err != nil {
		// Half a file must not look like a whole one: the connection is broken off.
		v.refuse(problem.From(err))
		panic(http.ErrAbortHandler)
	}
	return nil
}

// stream writes a page of events and those behind it, until there are no more
// or the export is full.
func (d *Dashboard) stream(v *visit, f keystore.EventFilter, events []keystore.Event, next string, out exporter) error {
	if err := out.begin(); err != nil {
		return err
	}
	var last time.Time
	for written := 0; ; {
		for _, e := range events {
			if err := out.event(e); err != nil {
				return err
			}
			last = e.At
		}
		written += len(events)
		if next == "" || written == d.o.ExportLimit {
			return out.end(next, last)
		}
		var err error
		events, next, err = d.o.Store.AuditLog(v.r.Context(), v.account.ID, f, next, min(exportPage, d.o.ExportLimit-written))
		if err != nil {
			return err
		}
	}
}

// jsonExporter writes what the audit log of the API answers, in one page.
type jsonExporter struct {
	w       io.Writer
	written bool
}

func (x *jsonExporter) begin() error {
	_, err := io.WriteString(x.w, `{"success":true,"data":[`)
	return err
}

func (x *jsonExporter) event(e keystore.Event) error {
	raw, err := json.Marshal(contract.ShowEvent(e))
	if err != nil {
		return fmt.Errorf("export event %s: %w", e.ID, err)
	}
	separator := ",\n"
	if !x.written {
		separator, x.written = "\n", true
	}
	_, err = io.WriteString(x.w, separator+string(raw))
	return err
}

func (x *jsonExporter) end(next string, _ time.Time) error {
	cursor := "null"
	if next != "" {
		raw, err := json.Marshal(next)
		if err != nil {
			return err
		}
		cursor = string(raw)
	}
	_, err := io.WriteString(x.w, "\n],\"next_cursor\":"+cursor+"}\n")
	return err
}

// csvExporter writes a table, with names beside ids and the event in words.
type csvExporter struct {
	limit int // of events
	names *naming
	rows  *csv.Writer
}

func csvColumns() []string {
	return []string{
		"time", "event", "action", "outcome", "actor_kind", "actor_id", "actor", "address",
		"key_id", "key", "user_id", "user", "changes", "request_id", "id",
	}
}

func (x *csvExporter) begin() error { return x.rows.Write(csvColumns()) }

func (x *csvExporter) event(e keystore.Event) error {
	view, err := x.names.tell(e)
	if err != nil {
		return err
	}
	shown := contract.ShowEvent(e)
	changes, err := json.Marshal(shown.Changes)
	if err != nil {
		return fmt.Errorf("export event %s: %w", e.ID, err)
	}
	var key, user named
	if e.Key != "" {
		if key, err = x.names.key(e.Key); err != nil {
			return err
		}
	}
	if e.User != "" {
		if user, err = x.names.user(e.User); err != nil {
			return err
		}
	}
	sentence := view.Who.Name + " " + view.What
	if view.Target != nil {
		sentence += " " + view.Target.Name
	}
	return x.write(
		e.At.UTC().Format(time.RFC3339), sentence, shown.Action, shown.Outcome, shown.Actor.Kind, e.Actor.ID, view.Who.called(), view.Address,
		string(e.Key), key.Name, string(e.User), user.called(), string(changes), e.RequestID, e.ID,
	)
}

func (x *csvExporter) end(next string, last time.Time) error {
	if next != "" {
		err := x.write("Not complete: an export holds " + number(int64(x.limit)) + " events. For earlier ones, export again until " +
			exact(last.Add(time.Minute)) + "; what is in both has the same id.")
		if err != nil {
			return err
		}
	}
	x.rows.Flush()
	return x.rows.Error()
}

// write writes a row of as many cells as all have, of which none is a formula.
func (x *csvExporter) write(cells ...string) error {
	row := make([]string, len(csvColumns()))
	for i, cell := range cells {
		row[i] = defused(cell)
	}
	return x.rows.Write(row)
}

// formula finds what a spreadsheet could take for the beginning of a formula: at
// the beginning of a cell, and behind a semicolon, which separates cells in some
// countries whatever the quotes say.
var formula = regexp.MustCompile(`(^|;)(["'\s]*[=+\-@＝＋－＠]|[\t\r\n])`)

// defused puts an apostrophe in front of that, which makes it a text (OWASP,
// "CSV Injection").
func defused(cell string) string { return formula.ReplaceAllString(cell, "$1'$2") }

// called is the name with what tells it apart: "Ada <ada@example.com>".
func (n named) called() string {
	if n.Name == "" || n.Detail == "" {
		return n.Name + n.Detail
	}
	return n.Name + " <" + n.Detail + ">"
}

func (a actorView) called() string { return named{Name: a.Name, Detail: a.Detail}.called() }
