package keystore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/redis/go-redis/v9"
)

// embedded is a Redis in the process for trying Gatehouse out and for one
// small node. It listens nowhere. Every change is in its journal, on the disk,
// before it is acknowledged.
type embedded struct {
	server *miniredis.Miniredis
	client *redis.Client
	one    *scriptCommitter

	mu      sync.Mutex // one change at a time: guards, journal, memory
	journal *journal
	broken  error // set when disk and memory may differ; ends all changes
	last    entryID
}

// openEmbedded reads the journal back into memory. A journal that is not
// complete is an error that names the line.
func openEmbedded(ctx context.Context, file string, now func() time.Time) (*embedded, error) {
	j, err := openJournal(file, now)
	if err != nil {
		return nil, err
	}
	e := &embedded{server: miniredis.NewMiniRedis(), journal: j}
	e.tick()
	e.server.ClockTTL(true)
	e.client = redis.NewClient(&redis.Options{
		Dialer:   func(context.Context, string, string) (net.Conn, error) { return e.server.Dial() },
		Protocol: 2, DisableIdentity: true, MaxRetries: -1, ContextTimeoutEnabled: true,
		MaintNotificationsConfig: noNotifications(),
		// Lookups have their own timeout. A change that is in the journal
		// must be applied, however long this process was held up.
		ReadTimeout: -1, WriteTimeout: -1,
	})
	e.one = newScriptCommitter(e.client, newMarkers("", false), func() string { return "" })
	for steps := range j.state(now().Unix()) {
		for _, s := range steps {
			if id, ok := parseEntryID(s.Field); ok && s.Kind == stepXAdd && id.compare(e.last) > 0 {
				e.last = id
			}
		}
		if err := e.one.commit(ctx, change{steps: steps}); err != nil {
			return nil, errors.Join(fmt.Errorf("load %s: %w", file, err), e.close())
		}
	}
	return e, nil
}

// commit checks the guards, makes the change durable, and then makes it
// visible, in this order, while no other change can come between.
func (e *embedded) commit(ctx context.Context, c change) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.broken != nil {
		return e.broken
	}
	if err := e.one.commit(ctx, change{guards: c.guards}); err != nil {
		return err
	}
	c.steps = e.numbered(c.steps)
	if err := e.journal.append(c.steps); err != nil {
		e.broken = fmt.Errorf("journal: %w", err)
		return e.broken
	}
	e.tick()
	// It is on the disk: a caller that goes away must not keep it from memory.
	if err := e.one.commit(context.WithoutCancel(ctx), change{steps: c.steps}); err != nil {
		e.broken = fmt.Errorf("journaled but not applied: %w", err)
		return e.broken
	}
	return nil
}

// numbered gives entries of streams their ids, so that they have the same ones
// when the journal is read back.
func (e *embedded) numbered(steps []step) []step {
	steps = slices.Clone(steps)
	for i, s := range steps {
		if s.Kind == stepXAdd && s.Field == "" {
			e.last = e.last.next(e.journal.now())
			steps[i].Field = e.last.String()
		}
	}
	return steps
}

// tick moves the clock by which values go away, and only changes move it: the
// server looks at every key it has whenever its clock has moved, which would
// make each lookup slower with each key.
func (e *embedded) tick() { e.server.SetTime(e.journal.now()) }

func (e *embedded) close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	err := errors.Join(e.client.Close(), e.journal.close())
	e.server.Close()
	if e.broken == nil {
		e.broken = errors.New("the store is closed")
	}
	return err
}
