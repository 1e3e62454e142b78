package keystore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"gatehouse/policy"
)

// What the tests need to see of the inside, and no more.

// ClientOf is the client by which the store talks to Redis, for hooks and to look
// into it. Of an embedded store it is that of a copy of what it holds now.
func ClientOf(s *Store) redis.UniversalClient {
	if s.embedded != nil {
		return s.embedded.copied()
	}
	return s.client
}

// LookupsOf is the client of its lookups.
func LookupsOf(s *Store) redis.UniversalClient { return s.lookups }

// UseClusterCommitter makes the store commit as on a Cluster: step by step.
func UseClusterCommitter(s *Store) {
	s.committer = &clusterCommitter{one: s.committer.(*scriptCommitter), later: s.finishLater}
}

// SpendersWaiting is how many wait for a round trip of others.
func SpendersWaiting(s *Store) int { return s.combiner.lanes.waiting() }

func (l *lanes[T]) waiting() int {
	n := l.whole.waiting.Load()
	for _, lane := range *l.nodes.Load() {
		n += lane.waiting.Load()
	}
	return int(n)
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

// NewReader makes a reader of its own on the client, of a store whose marker is
// named "marker".
func NewReader(client redis.UniversalClient, timeout time.Duration, log *zap.Logger) Reader {
	return Reader{newReader(client, newMarkers("", isCluster(client)), timeout, log)}
}

// ReaderOf is the store's own reader.
func ReaderOf(s *Store) Reader { return Reader{s.reader.(*reader)} }

// Get returns the value of the key.
func (r Reader) Get(ctx context.Context, key string) (raw string, found bool, err error) {
	v, err := r.r.get(ctx, key)
	return v.raw, v.found, err
}

// Marker returns the marker that comes with the value of the key, its slot, and
// the position that was known before.
func (r Reader) Marker(ctx context.Context, key string) (marker string, slot int, known uint64, err error) {
	v, err := r.r.get(ctx, key)
	return v.marker, v.slot, v.known, err
}

// MarkerName is the name of the marker that stands for the key.
func (r Reader) MarkerName(key string) string {
	name, _ := r.r.markers.of(key)
	return name
}

// Saw tells the reader of a position of the key's slot.
func (r Reader) Saw(key string, position uint64) {
	_, slot := r.r.markers.of(key)
	r.r.markers.saw(slot, position)
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
func (r Reader) Idle() bool {
	idle := r.r.lanes.whole.last.Load() == nil
	for _, lane := range *r.r.lanes.nodes.Load() {
		idle = idle && lane.last.Load() == nil && lane.follow.last.Load() == nil
	}
	return idle
}

// Waiting counts the reads that wait for the next batch.
func (r Reader) Waiting() int { return r.r.lanes.waiting() }

// Lanes is how many queues there are, of the masters of a Cluster.
func (r Reader) Lanes() int { return len(*r.r.lanes.nodes.Load()) }

// What the tests of the reader go up to.
const (
	MaxWaiting = maxWaiting
	MaxBatch   = maxBatch
	ProbePause = probePause
)

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
	StepXAdd    = stepXAdd
	StepReplace = stepReplace
	StepPublish = stepPublish
)

// ErrEmptied is why a store that answers is not believed.
var ErrEmptied = errEmptied

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

// CommitTo commits to a store, whatever its kind, what stands behind its own
// changes.
func CommitTo(ctx context.Context, s *Store, guards []Guard, steps []Step) error {
	return s.committer.commit(ctx, newChange(guards, steps))
}

// SettleIndex is what an upgrade of a store does to the keys of an account.
func SettleIndex(ctx context.Context, s *Store, account policy.AccountID) error {
	return s.settleIndex(ctx, account)
}

// Member is one of a sorted set.
type Member struct {
	Name  string
	Score int64
}

// Members returns the next n members of a sorted set, as a listing does.
func Members(ctx context.Context, s *Store, set string, after *Member, n int) ([]Member, error) {
	var from *member
	if after != nil {
		from = &member{after.Name, after.Score}
	}
	found, err := s.data.members(ctx, set, from, n)
	all := make([]Member, len(found))
	for i, m := range found {
		all[i] = Member{m.name, m.score}
	}
	return all, err
}

// SlotTag is what a Cluster is expected to hash of a key.
func SlotTag(key string) string { return slotTag(key) }

// ReadJournal reads what would be in the file of that name, and returns the
// steps that restore it, in no order, and what was left out at its end.
func ReadJournal(file string, content []byte, now time.Time) (all []Step, cut []byte, err error) {
	j := &journal{file: file, live: map[string]cell{}}
	if err := j.read(bytes.NewReader(content)); err != nil {
		return nil, nil, err
	}
	for steps := range j.state(now.Unix()) {
		all = append(all, steps...)
	}
	return all, j.cut, nil
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

// DecodeKey decodes a key record of either form.
func DecodeKey(raw, tokenHash string) error {
	_, err := decodeKey(raw, tokenHash)
	return err
}

// MarkersOf are the markers of the slots that the master has.
func MarkersOf(master string, slots []redis.ClusterSlot, prefix string) []string {
	m := newMarkers(prefix, true)
	var names []string
	for _, part := range slots {
		for slot := part.Start; part.Nodes[0].Addr == master && slot <= part.End; slot++ {
			names = append(names, m.name(slot))
		}
	}
	return names
}
