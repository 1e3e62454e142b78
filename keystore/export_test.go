package keystore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/alicebob/miniredis/v2/server"
	"github.com/redis/go-redis/v9"

	"gatehouse/policy"
)

// What the tests need to see of the inside, and no more.

// ClientOf is the client by which the store talks to Redis, for hooks.
func ClientOf(s *Store) redis.UniversalClient { return s.client }

// UseClusterCommitter makes the store commit as on a Cluster: step by step.
func UseClusterCommitter(s *Store) {
	s.committer = &clusterCommitter{one: s.committer.(*scriptCommitter), later: s.finishLater}
}

// SpendersWaiting is how many wait for a round trip of others.
func SpendersWaiting(s *Store) int {
	s.combiner.mu.Lock()
	defer s.combiner.mu.Unlock()
	return len(s.combiner.waiting)
}

// Mint makes a token from the given source of randomness.
func Mint(prefix string, random io.Reader) (Token, error) { return mintToken(prefix, random) }

// PreviewOf is what a listing shows of a minted token.
func PreviewOf(t Token, prefix string) string { return t.preview(prefix) }

// TwiceKey decodes a key record, encodes it, and decodes it again.
func TwiceKey(raw, tokenHash string) (first, second policy.Key, err error) {
	one, err := decodeKey(raw, tokenHash)
	if err != nil {
		return policy.Key{}, policy.Key{}, err
	}
	again, err := encodeKey(*one)
	if err != nil {
		return policy.Key{}, policy.Key{}, fmt.Errorf("accepted, but cannot be encoded: %w", err)
	}
	two, err := decodeKey(again, tokenHash)
	if err != nil {
		return policy.Key{}, policy.Key{}, fmt.Errorf("accepted, but not when encoded again: %w", err)
	}
	if one.accountUID != two.accountUID || one.tokenHash != two.tokenHash {
		return policy.Key{}, policy.Key{}, fmt.Errorf("bound to %q, then to %q", one.accountUID, two.accountUID)
	}
	return one.key, two.key, nil
}

// TwiceAccount does the same with an account record.
func TwiceAccount(raw string, id policy.AccountID, c policy.Catalogue) (first, second Account, err error) {
	one, err := decodeAccount(raw, id, c)
	if err != nil {
		return Account{}, Account{}, err
	}
	again, err := encodeAccount(*one)
	if err != nil {
		return Account{}, Account{}, fmt.Errorf("accepted, but cannot be encoded: %w", err)
	}
	two, err := decodeAccount(again, id, c)
	if err != nil {
		return Account{}, Account{}, fmt.Errorf("accepted, but not when encoded again: %w", err)
	}
	if one.uid != two.uid {
		return Account{}, Account{}, fmt.Errorf("is %q, then %q", one.uid, two.uid)
	}
	return one.account, two.account, nil
}

// Reader is the reader of single values.
type Reader struct{ r *reader }

// NewReader makes a reader of its own on the client.
func NewReader(client redis.UniversalClient, prefix string, timeout time.Duration) Reader {
	_, cluster := client.(*redis.ClusterClient)
	return Reader{newReader(client, newMarkers(prefix, cluster), timeout)}
}

// ReaderOf is the store's own reader.
func ReaderOf(s *Store) Reader { return Reader{s.reader} }

// Get returns the value of the key.
func (r Reader) Get(ctx context.Context, key string) (raw string, found bool, err error) {
	v, err := r.r.get(ctx, key)
	return v.raw, v.found, err
}

// Marker returns the marker that comes with the value of the key.
func (r Reader) Marker(ctx context.Context, key string) (string, error) {
	v, err := r.r.get(ctx, key)
	return v.marker, err
}

// Many returns the values of the keys.
func (r Reader) Many(ctx context.Context, keys []string) ([]string, error) {
	values, err := r.r.many(ctx, keys)
	raws := make([]string, len(values))
	for i, v := range values {
		raws[i] = v.raw
	}
	return raws, err
}

// Idle reports whether nobody reads and nobody waits.
func (r Reader) Idle() bool { return r.r.queue.Load() == nil }

// Waiting counts the reads that wait for the next batch.
func (r Reader) Waiting() int {
	n := 0
	for w := r.r.queue.Load(); w != nil && w != r.r.busy; w = w.next {
		n++
	}
	return n
}

// Guard is what must hold at a commit: the key holds Want or, where Below is
// set, has fewer fields than that, or, where Has is set, has that field.
type Guard struct {
	Key   string
	Want  string
	Below int
	Has   string
}

// Step is one command of a change.
type Step = step

// The kinds of steps.
const (
	StepSet     = stepSet
	StepDel     = stepDel
	StepHSet    = stepHSet
	StepHDel    = stepHDel
	StepCount   = stepCount
	StepZAdd    = stepZAdd
	StepZRem    = stepZRem
	StepPublish = stepPublish
)

// ErrMoved: a guard did not hold.
var ErrMoved = errMoved

func newChange(guards []Guard, steps []Step) change {
	c := change{steps: steps}
	for _, g := range guards {
		c.guards = append(c.guards, guard{key: g.Key, want: g.Want, below: g.Below, has: g.Has})
	}
	return c
}

// RunScript runs commit.lua and returns the number of the guard that failed.
func RunScript(ctx context.Context, client redis.UniversalClient, guards []Guard, steps []Step) (int, error) {
	keys, args := newChange(guards, steps).script("", "")
	reply, err := redis.NewScript(commitSource).Run(ctx, client, keys, args...).Slice()
	if err != nil {
		return 0, err
	}
	return int(reply[0].(int64)), nil
}

// Commit commits as a store does, on one node or step by step as on a Cluster.
func Commit(ctx context.Context, client redis.UniversalClient, stepwise bool, guards []Guard, steps []Step) error {
	_, cluster := client.(*redis.ClusterClient)
	one := newScriptCommitter(client, newMarkers("", cluster), func() string { return "" })
	var c committer = one
	if stepwise {
		c = &clusterCommitter{one: one, later: func([]change) {}}
	}
	return c.commit(ctx, newChange(guards, steps))
}

// SlotTag is what a Cluster is expected to hash of a key.
func SlotTag(key string) string { return slotTag(key) }

// ReadJournal reads what would be in the file of that name, and returns the
// steps that restore it, in no order.
func ReadJournal(file string, content []byte, now time.Time) ([]Step, error) {
	j := &journal{file: file, live: map[string]cell{}}
	if err := j.read(bytes.NewReader(content)); err != nil {
		return nil, err
	}
	var all []Step
	for steps := range j.state(now.Unix()) {
		all = append(all, steps...)
	}
	return all, nil
}

// CompactFrom sets the size from which the store's journal is rewritten.
func CompactFrom(s *Store, size int64) {
	s.embedded.mu.Lock()
	defer s.embedded.mu.Unlock()
	s.embedded.journal.compactFrom = size
}

// HoldEmbedded calls f in the embedded server before each of its commands.
func HoldEmbedded(s *Store, f func(command string)) {
	s.embedded.server.Server().SetPreHook(func(_ *server.Peer, command string, _ ...string) bool {
		f(command)
		return false
	})
}

// BreakJournal makes every write to the journal fail from now on.
func BreakJournal(s *Store) error {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	s.embedded.mu.Lock()
	defer s.embedded.mu.Unlock()
	err = s.embedded.journal.out.Close()
	s.embedded.journal.out = full
	return err
}

// Limits that the tests go up to.
const (
	Retention  = retention
	AccountTTL = accountTTL
	OrphanAge  = orphanAge
)

// FlushUsage writes what is known of the use of keys, as happens once a minute.
func (s *Store) FlushUsage(ctx context.Context) error { return s.flushUsage(ctx) }

// SetLease and RenewLease are what a process does with a lease.
func SetLease(ctx context.Context, s *Store, name, from, to string) error {
	return s.setLease(ctx, name, from, to)
}

// RenewLease renews it every so often.
func RenewLease(ctx context.Context, s *Store, name, holder string, every time.Duration, lost context.CancelCauseFunc) {
	s.renewLease(ctx, name, holder, every, lost)
}

// WriteError is what the last beat says of writing.
func WriteError(s *Store) error {
	if err := s.writable.Load(); err != nil {
		return *err
	}
	return nil
}

// Senders is how many other nodes' beats have arrived.
func Senders(s *Store) int {
	s.hearing.mu.Lock()
	defer s.hearing.mu.Unlock()
	return len(s.hearing.senders)
}

// UseCompact makes the store write compact records, and UseText text again.
func UseCompact(s *Store) { s.format.isCompact.Store(true) }

// UseText makes the store write records that earlier gateways understand.
func UseText(s *Store) { s.format.isCompact.Store(false) }

// RewriteRecords writes everything compact that is not.
func RewriteRecords(ctx context.Context, s *Store, progress func(done int)) error {
	return s.rewriteRecords(ctx, progress)
}

// CompactKey encodes the key that the JSON record means in the compact form.
func CompactKey(record, tokenHash string) (string, error) {
	k, err := decodeKey(record, tokenHash)
	if err != nil {
		return "", err
	}
	return encodeCompactKey(*k)
}

// ThroughCompactKey decodes a compact record, and encodes it again in both forms.
func ThroughCompactKey(raw, tokenHash string) (k policy.Key, accountUID, compact, record string, err error) {
	stored, err := decodeCompactKey(raw, tokenHash)
	if err != nil {
		return policy.Key{}, "", "", "", err
	}
	compact, err = encodeCompactKey(*stored)
	if err == nil {
		record, err = encodeKey(*stored)
	}
	if err != nil {
		return policy.Key{}, "", "", "", fmt.Errorf("accepted, but cannot be encoded: %w", err)
	}
	return stored.key, stored.accountUID, compact, record, nil
}

// IndexEntry is an entry of an index of keys.
type IndexEntry struct {
	ID        string
	Created   int64
	TokenHash string
	Ends      int64
}

// ParseIndex reads an entry in either form.
func ParseIndex(field, value string) (IndexEntry, error) {
	e, err := parseIndex(field, value)
	return IndexEntry{e.id, e.created, e.tokenHash, e.ends}, err
}

// CompactIndex is the entry in the compact form, if it has one.
func CompactIndex(e IndexEntry) (field, value string, ok bool) {
	value, ok = indexEntry{id: e.ID, created: e.Created, tokenHash: e.TokenHash, ends: e.Ends}.compact()
	return fieldsOfID(e.ID)[0], value, ok
}

// CheckHealth asks the store's servers how they are, as happens every ten seconds.
func CheckHealth(ctx context.Context, s *Store) { s.health.check(ctx) }

// Report tells the store's health what a beat found of a master: an error that
// keeps it from taking changes, or the state that the store is in.
func Report(s *Store, master string, state State, cause, write error) {
	s.health.reported(master, report{state: state, cause: cause, write: write})
}

// JudgeInfo says what is wrong with a server that answers INFO like that.
func JudgeInfo(info string, replicas int) (Servers, map[Warning]string) {
	return judge([]*serverInfo{parseServer(info)}, replicas)
}
