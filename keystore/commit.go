package keystore

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"
)

//go:embed commit.lua
var commitSource string

// errMoved: a guard no longer holds. What was read is out of date, and
// nothing was changed.
var errMoved = errors.New("changed in the meantime")

// guard is what must still be true at the moment of a commit: either that key
// holds exactly want ("" for no such key), or, where below is set, that the
// hash at key has fewer fields than that, or, where has is set, that it has
// that field.
type guard struct {
	key   string
	want  string
	below int
	has   string
}

type stepKind string

const (
	stepSet     stepKind = "set"
	stepDel     stepKind = "del"
	stepHSet    stepKind = "hset"
	stepHDel    stepKind = "hdel"
	stepCount   stepKind = "count"
	stepZAdd    stepKind = "zadd"
	stepZRem    stepKind = "zrem"
	stepXAdd    stepKind = "xadd"
	stepXDel    stepKind = "xdel"
	stepPublish stepKind = "publish"
)

// step is one command of a change. A member that a sorted set has keeps its
// score. Field is the hash field, the member of a sorted set, the channel, or
// the id of a stream's entry ("" for the next); Value the value, the score, the
// message, the entry, or how many are added to a field that counts. Ends is the
// Unix second at which a set value goes away, 0 for never, or a hash that
// counts, in whole. A stream keeps the last Keep entries of the last Age
// seconds before the newest, and goes away that long after it, by the clock
// that made the ids: that of one gateway could be wrong.
type step struct {
	Kind  stepKind `json:"kind"`
	Key   string   `json:"key"`
	Field string   `json:"field,omitempty"`
	Value string   `json:"value,omitempty"`
	Ends  int64    `json:"ends,omitempty"`
	Keep  int      `json:"keep,omitempty"`
	Age   int64    `json:"age,omitempty"`
}

// change is a set of steps that is committed if all guards hold. The steps
// are in the writing order that makes a crash between any two of them
// harmless, for stores that cannot do them as one.
type change struct {
	guards []guard
	steps  []step
	// event says in the audit trail what was done. Store.commit makes it the
	// first step: there is no change without it.
	event *storedEvent
}

// committer commits changes. It returns errMoved or ErrKeyLimit when a guard
// does not hold, in which case nothing has changed.
type committer interface {
	commit(ctx context.Context, c change) error
}

// scriptCommitter commits a change as one script: on one Redis, with or
// without Sentinel, every change is atomic.
type scriptCommitter struct {
	client redis.UniversalClient
	script *redis.Script
}

func newScriptCommitter(client redis.UniversalClient) *scriptCommitter {
	return &scriptCommitter{client: client, script: redis.NewScript(commitSource)}
}

func (s *scriptCommitter) commit(ctx context.Context, c change) error {
	// An error in a script takes nothing back. What a Redis user may not be
	// allowed to do, publishing, comes before the first write.
	c.steps = slices.Clone(c.steps)
	slices.SortStableFunc(c.steps, func(a, b step) int { return cmp.Compare(a.order(), b.order()) })
	keys, args := c.script()
	failed, err := s.run(ctx, "evalsha", s.script.Hash(), keys, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		failed, err = s.run(ctx, "eval", commitSource, keys, args)
	}
	if err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if failed == 0 {
		return nil
	}
	return c.guards[failed-1].err()
}

// once is a command that no client repeats by itself, not even that of a
// Cluster: a change whose answer was lost may have happened.
type once struct{ *redis.Cmd }

// NoRetry is asked by the client.
func (once) NoRetry() bool { return true }

func (s *scriptCommitter) run(ctx context.Context, command, script string, keys []string, args []any) (int, error) {
	all := append(make([]any, 0, 3+len(keys)+len(args)), command, script, len(keys))
	for _, k := range keys {
		all = append(all, k)
	}
	cmd := once{redis.NewCmd(ctx, append(all, args...)...)}
	if err := s.client.Process(ctx, cmd); err != nil {
		return 0, err
	}
	return cmd.Int()
}

func (s step) order() int {
	if s.Kind == stepPublish {
		return 0
	}
	return 1
}

func (g guard) err() error {
	if g.below > 0 {
		return ErrKeyLimit
	}
	return errMoved
}

// script spells the change as KEYS and ARGV of commit.lua.
func (c change) script() (keys []string, args []any) {
	keys = make([]string, 0, len(c.guards)+len(c.steps))
	args = make([]any, 0, 1+2*len(c.guards)+4*len(c.steps))
	args = append(args, len(c.guards))
	for _, g := range c.guards {
		keys = append(keys, g.key)
		switch {
		case g.below > 0:
			args = append(args, "below", g.below)
		case g.has != "":
			args = append(args, "has", g.has)
		default:
			args = append(args, "is", g.want)
		}
	}
	for _, s := range c.steps {
		keys = append(keys, s.Key)
		args = append(args, string(s.Kind))
		switch s.Kind {
		case stepSet:
			args = append(args, s.Value, strconv.FormatInt(s.Ends, 10))
		case stepHSet:
			args = append(args, s.Field, s.Value)
		case stepCount:
			args = append(args, s.Field, s.Value, strconv.FormatInt(s.Ends, 10))
		case stepZAdd:
			args = append(args, s.Value, s.Field)
		case stepHDel, stepZRem:
			args = append(args, s.Field)
		case stepPublish:
			args = append(args, s.Field, s.Value)
		case stepXAdd:
			args = append(args, cmp.Or(s.Field, "*"), s.Value, s.Keep, s.Age)
		case stepXDel:
			args = append(args, s.Value)
		case stepDel:
		}
	}
	return keys, args
}

// clusterCommitter commits on a Redis Cluster, where no script can span
// slots: guards of other slots are read first, and each step is a script of
// its own with the guards of its own slot. When one of those fails, what the
// steps before it added is taken back. A change of one slot is one script, as
// on one Redis.
type clusterCommitter struct{ one *scriptCommitter }

func (cc *clusterCommitter) commit(ctx context.Context, c change) error {
	if c.inOneSlot() {
		return cc.one.commit(ctx, c)
	}
	for _, g := range c.guards {
		if err := cc.one.commit(ctx, change{guards: []guard{g}}); err != nil {
			return err
		}
	}
	for i, s := range c.steps {
		part := change{steps: []step{s}}
		for _, g := range c.guards {
			if slotTag(g.key) == slotTag(s.Key) && !c.settled(g, i) {
				part.guards = append(part.guards, g)
			}
		}
		err := cc.one.commit(ctx, part)
		if err == nil {
			continue
		}
		if errors.Is(err, errMoved) || errors.Is(err, ErrKeyLimit) {
			// A caller that goes away must not leave half of it.
			if undoErr := cc.undo(context.WithoutCancel(ctx), c.steps[:i]); undoErr != nil {
				return fmt.Errorf("%w: a change was given up, and not taken back: %w", ErrUnavailable, undoErr)
			}
		}
		return err
	}
	return nil
}

func (cc *clusterCommitter) undo(ctx context.Context, done []step) error {
	for _, back := range undoOf(done) {
		if err := cc.one.commit(ctx, change{steps: []step{back}}); err != nil {
			return err
		}
	}
	return nil
}

// inOneSlot reports whether all of the change is of one slot for certain.
func (c change) inOneSlot() bool {
	tags := map[string]bool{}
	for _, g := range c.guards {
		tags[slotTag(g.key)] = true
	}
	for _, s := range c.steps {
		tags[slotTag(s.Key)] = true
	}
	return len(tags) == 1
}

// settled reports whether the guard is not to be asked any more before the
// step: an earlier step of the same change has written what it looks at, or has
// removed or overwritten something. That cannot be taken back, so what follows
// it must be done.
func (c change) settled(g guard, before int) bool {
	for _, s := range c.steps[:before] {
		if s.Key == g.key || s.Kind == stepDel || s.Kind == stepHDel || s.Kind == stepZRem || c.overwrites(s) {
			return true
		}
	}
	return false
}

// overwrites reports whether the step replaces a value that was there.
func (c change) overwrites(s step) bool {
	return s.Kind == stepSet && slices.ContainsFunc(c.guards, func(g guard) bool { return g.key == s.Key && g.want != "" })
}

// undoOf takes back, last first, what the steps added. Changes put additions
// before removals and overwritings, so nothing else can have happened before a
// guard fails.
func undoOf(done []step) []step {
	var undo []step
	for i := len(done) - 1; i >= 0; i-- {
		switch s := done[i]; s.Kind {
		case stepSet:
			undo = append(undo, step{Kind: stepDel, Key: s.Key})
		case stepHSet:
			undo = append(undo, step{Kind: stepHDel, Key: s.Key, Field: s.Field})
		case stepXAdd:
			undo = append(undo, step{Kind: stepXDel, Key: s.Key, Value: s.Value})
		case stepCount: // only ever in one slot
		case stepZAdd, stepDel, stepHDel, stepZRem, stepXDel, stepPublish:
		}
	}
	return undo
}

// slotTag is what Redis Cluster hashes of a key: what stands in its first
// braces, or all of it.
func slotTag(key string) string {
	if _, after, ok := strings.Cut(key, "{"); ok {
		if tag, _, ok := strings.Cut(after, "}"); ok && tag != "" {
			return tag
		}
	}
	return key
}
