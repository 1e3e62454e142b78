package keystore

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"go.etcd.io/bbolt"
)

const (
	// commitTogether is how many changes share a transaction, and so a write to
	// the disk, when they wait at the same time.
	commitTogether = 128
	// writeRetry is how long after a write that failed another is tried, so that it
	// is known that there is room again before somebody needs it.
	writeRetry = 5 * time.Second
)

var (
	errStoreClosed = errors.New("the store is closed")
	// errUnconfirmed: a commit is visible, and may not be on the disk.
	errUnconfirmed = fmt.Errorf("%w: the disk did not confirm what was written: look at the disk, and restart the gateway", ErrUncertain)
)

// pending is a change that waits for its transaction. done gets one message.
type pending struct {
	change change
	done   chan error
}

// commit makes the change durable and visible in one transaction with its
// guards. Changes that come while the disk is written share the next
// transaction; a change that comes alone waits for nobody. Once its transaction has
// begun, it is waited for however long the disk takes, and whatever ctx says: what
// became of it is known.
func (e *embedded) commit(ctx context.Context, c change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	p := pending{c, make(chan error, 1)}
	select {
	case e.queue <- p:
	case <-ctx.Done():
		return ctx.Err()
	case <-e.closing:
		return errStoreClosed
	}
	return <-p.done
}

// writeAll commits what waits, and removes what has ended, until the store is
// closed.
func (e *embedded) writeAll() {
	sweep := time.NewTicker(sweepEvery)
	defer sweep.Stop()
	retry := time.NewTicker(writeRetry)
	defer retry.Stop()
	for {
		select {
		case first := <-e.queue:
			e.commitAll(e.waiting(first))
		case <-sweep.C:
			e.sweep()
			e.releasePages()
		case <-retry.C:
			if e.lastWriteError() != nil {
				e.probe()
			}
		case <-e.closing:
			return
		}
	}
}

// waiting returns the change and those that wait beside it.
func (e *embedded) waiting(first pending) []pending {
	all := []pending{first}
	for len(all) < commitTogether {
		select {
		case next := <-e.queue:
			all = append(all, next)
		default:
			return all
		}
	}
	return all
}

// commitAll commits changes in one transaction, each of which sees those before
// it. One that meets something damaged fails alone: the others are done again
// without it.
func (e *embedded) commitAll(all []pending) {
	for len(all) > 0 {
		results := make([]error, len(all))
		spoilt := -1
		err := e.write(func(tx *bbolt.Tx) error {
			changed := false
			for i, p := range all {
				results[i] = applyChange(tx, p.change, e.clock())
				if results[i] == nil {
					changed = true
				} else if !failedGuard(results[i]) {
					spoilt = i
					return results[i]
				}
			}
			if !changed {
				return errNothingToWrite
			}
			return nil
		})
		if spoilt >= 0 {
			all[spoilt].done <- fmt.Errorf("commit: %w", err)
			all = append(all[:spoilt:spoilt], all[spoilt+1:]...)
			continue
		}
		for i, p := range all {
			if results[i] == nil && err != nil {
				results[i] = fmt.Errorf("commit: %w", err)
			}
			if results[i] == nil {
				e.tell(p.change)
			}
			p.done <- results[i]
		}
		return
	}
}

// tell publishes what the change says to the only process that there is.
func (e *embedded) tell(c change) {
	for _, s := range c.steps {
		if s.Kind == stepPublish && e.heard != nil {
			e.heard(s.Value)
		}
	}
}

// errNothingToWrite rolls a transaction back in which no guard has held.
var errNothingToWrite = errors.New("nothing to write")

func failedGuard(err error) bool { return errors.Is(err, errMoved) || errors.Is(err, ErrKeyLimit) }

// write runs one transaction. What it returns is about that transaction alone,
// unless it is errUnconfirmed: from then on nothing is written any more.
func (e *embedded) write(do func(tx *bbolt.Tx) error) (err error) {
	e.writing.Lock()
	defer e.writing.Unlock()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true)) // see recovered
	if e.broken != nil {
		return e.broken
	}
	id, asked := 0, error(nil)
	defer func() {
		if err == nil || asked == nil {
			e.noteWrite(err)
		}
	}()
	defer e.clearUp(&err, &id)
	return e.update(func(tx *bbolt.Tx) error {
		id = tx.ID()
		asked = do(tx)
		return asked
	})
}

// clearUp looks at what a transaction that failed has left. Its pages do not
// count until a page that names them is written last. When that page is there and
// only its arrival on the disk was not confirmed, a later transaction could
// overwrite what the disk still goes by: nothing must be written any more. The
// same after a panic: bbolt's memory may differ from its file.
func (e *embedded) clearUp(err *error, id *int) {
	if p := recover(); p != nil {
		*err = fmt.Errorf("%w: %v", errDamaged, p)
		e.broken = *err
		return
	}
	if *err == nil || *id == 0 {
		return
	}
	visible := 0
	failed := e.view(context.Background(), func(tx *bbolt.Tx, _ int64) error {
		visible = tx.ID()
		return nil
	})
	if failed != nil || visible >= *id {
		e.broken = fmt.Errorf("%w: %w", errUnconfirmed, *err)
		*err = e.broken
	}
}

// noteWrite keeps how the last write to the disk has ended.
func (e *embedded) noteWrite(err error) {
	if e.wrote != nil {
		e.wrote(err)
	}
	if err == nil {
		e.failing.Store(nil)
		return
	}
	e.failing.Store(&err)
}

// lastWriteError is why the last write to the disk failed; nil when it succeeded.
// While it is not nil, a write is tried every five seconds.
func (e *embedded) lastWriteError() error {
	if err := e.failing.Load(); err != nil {
		return *err
	}
	return nil
}

// probe tries whether the disk takes writes again.
func (e *embedded) probe() {
	_ = e.write(func(tx *bbolt.Tx) error { // its outcome is noted
		about, err := bucketIn(tx, aboutBucket, 0)
		if err != nil {
			return err
		}
		return about.put([]byte("probe"), 0, e.clock().UTC().Format(time.RFC3339))
	})
}
