package main

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// flushPause is how long a line waits at the most while the output is well.
	flushPause = time.Second
	// flushSize is how much is written without waiting for that.
	flushSize = 64 << 10
	// keptBuffer is how large a buffer may have grown to be used again.
	keptBuffer = 1 << 20
	// stopPatience is for how long an output that takes nothing is waited for at
	// the end.
	stopPatience = 2 * time.Second
)

// logBuffer takes lines without ever waiting for its output, which a goroutine
// of its own writes to. What does not fit is dropped and counted. Twice most, in
// bytes, is in memory at a time: what waits, and what is being written.
type logBuffer struct {
	out  io.Writer
	most int

	mu      sync.Mutex
	waiting []byte

	writing  atomic.Int64 // lines that are being written
	dropped  atomic.Uint64
	reported uint64            // of dropped
	tell     func(lost uint64) // that so many lines were dropped, when the output takes some again

	wake, stopping, done chan struct{}
}

// newLogBuffer makes a buffer that stop ends.
func newLogBuffer(out io.Writer, most int, tell func(lost uint64)) *logBuffer {
	b := &logBuffer{
		out: out, most: most, tell: tell, wake: make(chan struct{}, 1), stopping: make(chan struct{}), done: make(chan struct{}),
	}
	go b.run() // until stop
	return b
}

// logSink is a zapcore.WriteSyncer that may fill the buffer up to a part of it,
// so that lines of one kind leave room for others.
type logSink struct {
	*logBuffer
	most int
}

// Write takes a line, or drops it: a log must not fail what it is about.
func (s logSink) Write(line []byte) (int, error) {
	s.mu.Lock()
	fits := len(s.waiting)+len(line) <= s.most
	if fits {
		s.waiting = append(s.waiting, line...)
	}
	isLarge := len(s.waiting) >= flushSize
	s.mu.Unlock()
	if !fits {
		s.dropped.Add(1)
	}
	if isLarge {
		select {
		case s.wake <- struct{}{}:
		default: // it is awake
		}
	}
	return len(line), nil
}

// Sync does not wait either; stop does.
func (s logSink) Sync() error { return nil }

func (b *logBuffer) run() {
	defer close(b.done)
	tick := time.NewTicker(flushPause)
	defer tick.Stop()
	var spare []byte
	for {
		select {
		case <-tick.C:
		case <-b.wake:
		case <-b.stopping:
			b.flush(b.flush(spare)) // the first may have had something to tell
			return
		}
		spare = b.flush(spare)
	}
}

// flush writes what waits, and returns a buffer to be used again.
func (b *logBuffer) flush(spare []byte) []byte {
	b.mu.Lock()
	lines := b.waiting
	b.waiting = spare[:0]
	b.writing.Store(int64(bytes.Count(lines, newline)))
	b.mu.Unlock()
	if len(lines) == 0 {
		return lines
	}
	n, err := b.out.Write(lines)
	b.writing.Store(0)
	if err != nil {
		b.dropped.Add(uint64(bytes.Count(lines[n:], newline))) //nolint:gosec // a count
	} else if dropped := b.dropped.Load(); dropped != b.reported {
		b.tell(dropped - b.reported)
		b.reported = dropped
	}
	if cap(lines) > keptBuffer {
		return nil
	}
	return lines
}

var newline = []byte{'\n'} //nolint:gochecknoglobals // a constant

// stop writes what waits, and gives an output up that does not take it in time:
// what it holds is lost then, and the error says how many lines.
func (b *logBuffer) stop() error {
	close(b.stopping)
	late := time.NewTimer(stopPatience)
	defer late.Stop()
	select {
	case <-b.done:
		return nil
	case <-late.C:
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	return fmt.Errorf("the output takes no lines: the last %d of the log are lost", b.writing.Load()+int64(bytes.Count(b.waiting, newline)))
}
