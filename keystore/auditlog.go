package keystore

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.uber.org/zap"

	"gatehouse/policy"
)

const (
	// auditPortion is how many entries of a stream are read at a time.
	auditPortion = 250
	// auditScan bounds how many events one call looks at, however few of them
	// are wanted.
	auditScan = 2000
)

// AuditLog returns up to limit events of the account, the newest first, from
// the cursor on that an earlier call returned ("" for the first), and the
// cursor of the next page, "" when there is none; or ErrBadCursor. Where the
// filter passes over many events, a page can have few or none, and a next one.
func (s *Store) AuditLog(ctx context.Context, account policy.AccountID, f EventFilter, cursor string, limit int) ([]Event, string, error) {
	after, err := parseAuditCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	uid, err := s.eventsOf(ctx, account, f)
	if err != nil {
		return nil, "", fmt.Errorf("read audit log: %w", err)
	}
	trail := s.trail(account, after)
	oldest := s.o.Now().Add(-s.o.Audit.Age)
	events := []Event{}
	next := ""
	for scanned := 0; ; scanned++ {
		e, err := trail.next(ctx)
		if err != nil {
			return nil, "", fmt.Errorf("read audit log: %w", err)
		}
		if e == nil {
			return events, "", s.checkRead(ctx, account, events)
		}
		wanted := f.wants(&e.stored.event) && !e.stored.event.At.Before(oldest) && (f.Predecessors || e.stored.accountUID == uid)
		if wanted && len(events) == limit || scanned == auditScan {
			return events, next, nil
		}
		if wanted {
			events = append(events, e.stored.event)
		}
		next = e.position.cursor()
	}
}

// eventsOf returns the incarnation of the account whose events are wanted.
func (s *Store) eventsOf(ctx context.Context, account policy.AccountID, f EventFilter) (uid string, err error) {
	if f.Predecessors {
		return "", nil
	}
	stored, _, err := s.readAccount(ctx, account)
	if err != nil {
		return "", err
	}
	return stored.uid, nil
}

// checkRead: nothing is read into an empty answer of an emptied store.
func (s *Store) checkRead(ctx context.Context, account policy.AccountID, events []Event) error {
	if len(events) > 0 {
		return nil
	}
	return s.trustAbsence(ctx, s.names.account(account))
}

func (f EventFilter) wants(e *Event) bool {
	return (f.Users || e.User == "" && !e.Action.aboutUsers()) && (f.Key == "" || e.Key == f.Key || e.made(f.Key)) && (f.Action == "" || e.Action == f.Action) &&
		(f.Outcome == "" || e.Outcome == f.Outcome || f.Outcome == NotDone && e.Outcome != Done) &&
		(f.From.IsZero() || !e.At.Before(f.From)) && (f.To.IsZero() || e.At.Before(f.To))
}

// made reports whether the key came into being by this regeneration of another one.
func (e *Event) made(key policy.KeyID) bool {
	return e.Action == KeyRegenerate && slices.ContainsFunc(e.Changes, func(c FieldChange) bool {
		return c.Field == "id" && bytes.Equal(c.New, jsonOf(key))
	})
}

// position is a place in the trail: an entry's id, and the stream it is in.
type position struct {
	id     entryID
	stream int
}

func (p position) compare(other position) int {
	return cmp.Or(p.id.compare(other.id), cmp.Compare(p.stream, other.stream))
}

func (p position) cursor() string { return strconv.Itoa(p.stream) + "." + p.id.String() }

// parseAuditCursor reads what cursor wrote; nil for "".
func parseAuditCursor(cursor string) (*position, error) {
	if cursor == "" {
		return nil, nil
	}
	number, id, _ := strings.Cut(cursor, ".")
	stream, err := strconv.Atoi(number)
	if err != nil || stream < 0 || stream >= auditStreams {
		return nil, ErrBadCursor
	}
	at, ok := parseEntryID(id)
	if p := (position{id: at, stream: stream}); ok && p.cursor() == cursor {
		return &p, nil
	}
	return nil, ErrBadCursor
}

// auditStreams is how many streams a trail has: what was done, and what was
// refused.
const auditStreams = 2

// trail reads the streams of an account as one, the newest entry first.
type trail struct {
	data    data
	log     *zap.Logger
	streams [auditStreams]stream
}

type entry struct {
	position position
	stored   *storedEvent
}

type stream struct {
	name  string
	from  string // where the next portion begins; "" when there is none
	ready []entry
}

// trail begins behind the position, or at the newest entry.
func (s *Store) trail(account policy.AccountID, after *position) *trail {
	t := &trail{data: s.data, log: s.o.Log}
	for i, name := range [auditStreams]string{s.names.audit(account), s.names.refused(account)} {
		from := "+"
		if after != nil {
			from = after.id.String()
			if (position{id: after.id, stream: i}).compare(*after) >= 0 {
				from = "(" + from
			}
		}
		t.streams[i] = stream{name: name, from: from}
	}
	return t
}

// next returns the next entry, nil at the end.
func (t *trail) next(ctx context.Context) (*entry, error) {
	var newest *stream
	for i := range t.streams {
		st := &t.streams[i]
		if err := t.fill(ctx, i); err != nil {
			return nil, err
		}
		if len(st.ready) > 0 && (newest == nil || st.ready[0].position.compare(newest.ready[0].position) > 0) {
			newest = st
		}
	}
	if newest == nil {
		return nil, nil
	}
	e := newest.ready[0]
	newest.ready = newest.ready[1:]
	return &e, nil
}

// fill reads on in a stream of which everything was taken.
func (t *trail) fill(ctx context.Context, i int) error {
	st := &t.streams[i]
	for len(st.ready) == 0 && st.from != "" {
		if err := t.readPortion(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

func (t *trail) readPortion(ctx context.Context, i int) error {
	st := &t.streams[i]
	found, err := t.data.entries(ctx, st.name, st.from, auditPortion)
	if err != nil {
		return errors.Join(ErrUnavailable, err)
	}
	st.from = ""
	for _, m := range found {
		id, ok := parseEntryID(m.id)
		stored, err := decodeEvent(m.event)
		if !ok || err != nil {
			// One event that another version has written must not hide all others.
			t.log.Warn("an event of the audit trail is not understood, and is not shown",
				zap.String("stream", st.name), zap.String("entry", m.id), zap.Error(err))
			continue
		}
		st.ready = append(st.ready, entry{position: position{id: id, stream: i}, stored: stored})
	}
	if len(found) == auditPortion {
		st.from = "(" + found[len(found)-1].id
	}
	return nil
}
