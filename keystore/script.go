package keystore

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

//go:embed commit.lua
var commitSource string

// scriptCommitter commits a change as one script: on one Redis, with or
// without Sentinel, every change is atomic. All keys of a change must be of one
// slot on a Cluster.
type scriptCommitter struct {
	client  redis.UniversalClient
	script  *redis.Script
	markers *markers
	// identity is that of the store; "" where it has no markers.
	identity func() string
	// landed is told of every change that was made, and where in its slot.
	landed func(c change, slot int, position uint64)
	// durability is what must hold before a change is acknowledged.
	durability Durability
}

func newScriptCommitter(client redis.UniversalClient, m *markers, identity func() string) *scriptCommitter {
	return &scriptCommitter{
		client: client, script: redis.NewScript(commitSource), markers: m, identity: identity, landed: func(change, int, uint64) {},
	}
}

func (s *scriptCommitter) commit(ctx context.Context, c change) error {
	if len(c.guards)+len(c.steps) == 0 {
		return nil
	}
	c.steps = slices.Clone(c.steps)
	slices.SortStableFunc(c.steps, func(a, b step) int { return cmp.Compare(a.order(), b.order()) })
	identity := s.identity()
	marker, slot := s.markers.of(c.anyKey())
	keys, args := c.script(identity, marker)
	failed, position, err := s.run(ctx, "evalsha", s.script.Hash(), keys, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		failed, position, err = s.run(ctx, "eval", commitSource, keys, args)
	}
	if redis.HasErrorPrefix(err, "EMPTIED") {
		return fmt.Errorf("commit: %w", errEmptied)
	}
	if err != nil && !errors.Is(err, ErrUncertain) {
		return fmt.Errorf("commit: %w", uncertain(err))
	}
	if at, ok := parsePosition(position); ok {
		s.markers.saw(slot, at)
		if failed == 0 {
			s.landed(c, slot, at)
		}
	}
	if failed == 0 {
		return err
	}
	return c.guards[failed-1].err()
}

// uncertain says of an error that the change may have been made all the same,
// unless Redis answered or nothing was sent.
func uncertain(err error) error {
	var reply redis.Error
	var op *net.OpError
	unsent := errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted)
	if errors.As(err, &reply) || unsent {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUncertain, err)
}

// noRetry is a command that no client repeats by itself, not even that of a
// Cluster: a change whose answer was lost may have happened.
type noRetry struct{ *redis.Cmd }

// NoRetry is asked by the client.
func (noRetry) NoRetry() bool { return true }

func (s *scriptCommitter) run(ctx context.Context, command, script string, keys []string, args []any) (failed int, position string, err error) {
	all := append(make([]any, 0, 3+len(keys)+len(args)), command, script, len(keys))
	for _, k := range keys {
		all = append(all, k)
	}
	cmd := redis.NewCmd(ctx, append(all, args...)...)
	cmd.SetFirstKeyPos(3)
	err = s.send(ctx, cmd, keys)
	if err != nil && !errors.Is(err, ErrUncertain) {
		return 0, "", err
	}
	reply, replyErr := cmd.Slice()
	if replyErr != nil || len(reply) != 2 {
		return 0, "", cmp.Or(err, replyErr, errShortReply)
	}
	number, _ := reply[0].(int64)
	position, _ = reply[1].(string)
	return int(number), position, err
}

// send has the command answered, and, where the operator asks for replicas,
// waits until so many of them have it. WAIT is about what its own connection has
// written: it must follow on the same one.
func (s *scriptCommitter) send(ctx context.Context, cmd *redis.Cmd, keys []string) error {
	if s.durability.Replicas == 0 || len(keys) == 0 {
		return s.client.Process(ctx, noRetry{cmd})
	}
	var client redis.Cmdable = s.client
	if cluster, ok := s.client.(*redis.ClusterClient); ok {
		node, err := cluster.MasterForKey(ctx, keys[0])
		if err != nil {
			return err
		}
		client = node
	}
	pipe := client.Pipeline()
	_ = pipe.Process(ctx, noRetry{cmd}) // queues it
	wait := redis.NewIntCmd(ctx, "wait", s.durability.Replicas, s.durability.Timeout.Milliseconds())
	_ = pipe.Process(ctx, wait)
	_, _ = pipe.Exec(ctx) // each command has its own error
	if err := cmd.Err(); err != nil {
		if cluster, ok := s.client.(*redis.ClusterClient); ok && redis.HasErrorPrefix(err, "MOVED") {
			cluster.ReloadState(ctx)
		}
		return err
	}
	if err := wait.Err(); err != nil {
		return fmt.Errorf("%w: wait for replicas: %w", ErrUncertain, err)
	}
	if n := wait.Val(); n < int64(s.durability.Replicas) {
		return fmt.Errorf("%w: %d of %d replicas have it after %v", ErrUncertain, n, s.durability.Replicas, s.durability.Timeout)
	}
	return nil
}

// order: what frees memory comes first, and a message behind what it is about.
func (s step) order() int {
	switch {
	case s.Kind == stepReplace:
		return 1
	case s.frees() || s.Kind == stepRoom:
		return 0
	case s.Kind == stepPublish:
		return 3
	}
	return 2
}

func (g guard) err() error {
	if g.below > 0 {
		return ErrKeyLimit
	}
	return errMoved
}

// anyKey is a key of the change, which says where on a Cluster it is made.
func (c change) anyKey() string {
	if len(c.steps) > 0 {
		return c.steps[0].Key
	}
	return c.guards[0].key
}

// script spells the change as KEYS and ARGV of commit.lua.
func (c change) script(identity, marker string) (keys []string, args []any) {
	keys = make([]string, 0, 1+len(c.guards)+len(c.steps))
	args = make([]any, 0, 4+2*len(c.guards)+4*len(c.steps))
	counts, channel := "", ""
	if c.writes() {
		counts = "count"
	}
	for _, s := range c.steps {
		if s.Kind == stepPublish {
			channel = s.Field
		}
	}
	if identity != "" {
		keys = append(keys, marker)
	}
	args = append(args, identity, counts, channel, len(c.guards))
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
		case stepSet, stepReplace:
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
		case stepXAdd, stepXOnce:
			args = append(args, cmp.Or(s.Field, "*"), s.Value, s.Keep, s.Age)
		case stepXDel:
			args = append(args, s.Value)
		case stepDel, stepRoom:
		}
	}
	return keys, args
}

// parsePosition reads what commit.lua says of a marker: "generation:count".
func parsePosition(text string) (uint64, bool) {
	if text == "" || strings.HasPrefix(text, ":") {
		return 0, false
	}
	return parseMarker("x:"+text, "x")
}

// Durability says what must hold before a change is acknowledged.
type Durability struct {
	// Replicas is how many replicas must have a change; 0 for none.
	Replicas int
	// Timeout is how long to wait for them.
	Timeout time.Duration
}
