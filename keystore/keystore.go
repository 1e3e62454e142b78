// Package keystore keeps accounts, keys and what is known of their tokens, in
// Redis or in a file of one small node. Only keystore talks to Redis. It does
// not decide whether a request may pass: policy does.
package keystore

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-redis/redis_rate/v10"
	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"gatehouse/policy"
)

// The errors by which callers tell what happened. Every other error means
// that the store could not say, and is to be treated like ErrUnavailable.
var (
	// ErrUnknownToken: the store answered, and has no key for the token.
	ErrUnknownToken = errors.New("unknown token")
	// ErrUnavailable: the store did not answer, or not with what it should
	// hold. It says nothing about any key.
	ErrUnavailable = errors.New("key store unavailable")
	// ErrNotFound: there is no such key or account, or it is another account's.
	ErrNotFound = errors.New("not found")
	// ErrNoSession: who asked is signed in no more: the session has ended, its
	// user is disabled or gone, or its account suspended or gone.
	ErrNoSession = errors.New("no session")
	// ErrKeyInUse: a key cannot update, revoke or regenerate itself.
	ErrKeyInUse = errors.New("a key cannot change itself")
	// ErrKeyLimit: the account has as many keys as it may have.
	ErrKeyLimit = errors.New("the account's number of keys has reached its limit")
	// ErrBadCursor: the cursor is none that a listing returned.
	ErrBadCursor = errors.New("unknown cursor")
	// ErrReplaced: the key was replaced by another one, and can only be revoked.
	ErrReplaced = errors.New("the key was replaced by another one")
	// ErrCallerReplaced: the caller was replaced by another key, and changes
	// nothing any more, so that an old token cannot take the new one's place.
	ErrCallerReplaced = errors.New("the caller was replaced by another key")
	// ErrEmailTaken: a user of this or another account has the e-mail address.
	ErrEmailTaken = errors.New("the e-mail address is a user's already")
	// ErrUserLimit: the account has as many users as it may have.
	ErrUserLimit = errors.New("the account's number of users has reached its limit")
	// ErrConflict: another change came first, again and again or for good.
	ErrConflict = errors.New("another change came first")
	// ErrUncertain comes with ErrUnavailable: the change may have been made, or
	// fewer replicas have it than the operator asks for.
	ErrUncertain = errors.New("it is not certain that the change was made")
	// ErrOlder comes with ErrUnavailable: the store has lost acknowledged changes,
	// and takes none that gives anything until an operator accepts it.
	ErrOlder = errors.New("the store is older than what this node has seen of it")
	// ErrNoStore: nothing was ever kept here; Init makes a store.
	ErrNoStore = errors.New("there is no store here")
	// ErrStoreExists: Init found a store, or a part of one.
	ErrStoreExists = errors.New("there is a store here already")

	// ErrExpired: the expiry that a key is to have has passed by the clock of the
	// store, which is ahead of this node's.
	ErrExpired = errors.New("the expiry has passed by the clock of the key store")

	errShortReply = errors.New("redis answered fewer values than were asked for")
	errNotReached = errors.New("the store was not reached yet")
)

// RefusedError says that the caller itself may no longer do anything: it was
// disabled, expired or suspended before its change was committed.
type RefusedError struct{ Decision policy.Decision }

func (e *RefusedError) Error() string { return "caller refused: " + string(e.Decision.Reason) }

// Mode says when a lookup may be answered without asking Redis.
type Mode string

const (
	// Strict asks Redis for every lookup.
	Strict Mode = "strict"
	// Cached answers from the process while the entry is younger than its
	// time to live, every change is heard of, and none was.
	Cached Mode = "cached"
)

// Redis says how to reach Redis: one node, several nodes of a Cluster, or
// Sentinels, where MasterName is set.
type Redis struct {
	Addrs      []string
	MasterName string
	Username   string
	Password   string
	DB         int
	TLS        *tls.Config
	// SentinelUsername and SentinelPassword are shown to Sentinels; the others to
	// the servers alone.
	SentinelUsername string
	SentinelPassword string
}

// Options is what a Store needs. Exactly one of Redis and EmbeddedFile is set.
type Options struct {
	Redis        *Redis
	EmbeddedFile string
	// Prefix begins every Redis key and channel; it has no braces.
	Prefix string
	// Timeout bounds a lookup.
	Timeout time.Duration
	Mode    Mode
	// CacheTTL bounds how old an answer of Cached mode may be; CacheEntries
	// how many decoded keys are held in either mode.
	CacheTTL     time.Duration
	CacheEntries int
	// StaleIfUnavailable is for how long after its last reading a key goes on
	// working while Redis does not answer; 0 for not at all.
	StaleIfUnavailable time.Duration

	Catalogue   policy.Catalogue
	TokenPrefix string
	Delegation  policy.Delegation
	MaxKeys     int
	// Audit says how much of each account's audit trail is kept.
	Audit AuditKeep
	// Changed is told of every change that this node makes or hears of; nil for
	// nobody. It must not wait for anything.
	Changed func(Change)
	// Propagated is told how long a change, of whichever node, took until this
	// node went by it, and Managed how every management operation ended; nil for
	// nobody. They must not wait for anything.
	Propagated func(delay time.Duration)
	Managed    func(action Action, outcome Outcome)

	// Durability is what must hold before a change is acknowledged.
	Durability Durability
	// ReadOnly begins no new store where there is none.
	ReadOnly bool
	// Create begins a new store where there is none. Tests and the demo set it;
	// a gateway never does: an empty store is an outage.
	Create bool

	Now func() time.Time
	Log *zap.Logger
	// AuditLog gets a line for each event of audit trails; nil: Log.
	AuditLog *zap.Logger
}

// accountTTL is how old a cached account may be at the most.
const accountTTL = 5 * time.Second

// manageTimeout bounds one command of a management request. It is longer than
// a lookup's: a change may have to wait for the disk.
const manageTimeout = 2 * time.Second

// Store keeps accounts and keys. It may be used concurrently.
type Store struct {
	o         Options
	lookups   redis.UniversalClient // the reader's alone; nil for an embedded store
	client    redis.UniversalClient // everybody else's; likewise
	committer committer
	data      data
	reader    getter
	names     names
	keys      *memories[[sha256.Size]byte, storedKey]
	accounts  *memories[policy.AccountID, storedAccount]
	// identity is the marker of the store this process works with; nil until
	// it was reached for the first time.
	identity atomic.Pointer[string]
	// unmarked: the store is an older gateway's, without markers, and only read.
	unmarked   atomic.Bool
	markers    *markers
	rollback   *rollback
	hearing    *hearing
	unfinished unfinished
	format     storeFormat
	subscribed atomic.Bool
	// cutSubscription ends the present subscription.
	cutSubscription atomic.Pointer[context.CancelCauseFunc]
	writable        atomic.Pointer[error]            // what the last beat says of writing
	elapsed         func() time.Duration             // since the store was opened
	permitted       atomic.Pointer[policy.Catalogue] // what accounts may hold
	budgets         *redis_rate.Limiter
	combiner        *combiner // of budgets
	usage           usage
	ranking         sync.Mutex // held while usage is ranked
	stop            context.CancelFunc
	background      sync.WaitGroup
	embedded        *embedded
	health          *health
}

// Open opens the store. An embedded file that cannot be read completely is an
// error; a Redis that does not answer is not: lookups are refused until it
// does. Close must be called.
func Open(ctx context.Context, o Options) (*Store, error) {
	s, err := newStore(o) //nolint:contextcheck // the file of an embedded store is opened to its end
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	if err := s.bind(ctx); err != nil {
		if s.embedded != nil {
			return nil, errors.Join(err, s.disconnect())
		}
		o.Log.Warn("store not reached", zap.Error(err))
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = stop
	s.background.Go(func() { s.health.run(background) })
	if s.embedded == nil {
		s.background.Go(func() { s.watch(background) })
	}
	if s.embedded == nil && !o.ReadOnly {
		s.background.Go(func() { s.beat(background) })
		s.background.Go(func() { s.redo(background) })
		s.background.Go(func() { s.finishChanges(background) })
	}
	s.background.Go(func() { s.writeUsage(background) })
	return s, nil
}

// newStore makes a store that does nothing in the background yet.
func newStore(o Options) (*Store, error) {
	if (o.Redis == nil) == (o.EmbeddedFile == "") {
		return nil, errors.New("exactly one of Redis and an embedded file must be given")
	}
	o.Audit = o.Audit.orDefault()
	if o.AuditLog == nil {
		o.AuditLog = o.Log
	}
	s := &Store{o: o, names: names{o.Prefix}, rollback: newRollback(), hearing: newHearing(), elapsed: stopwatch()}
	s.permitted.Store(&o.Catalogue)
	s.usage.turns = newUsageTurns()
	s.health = newHealth(s.o)
	if err := s.connect(); err != nil {
		return nil, err
	}
	if s.embedded == nil {
		s.health.client = s.client
		s.combiner = newCombiner(s.client, s.markers, s.o.Timeout)
		s.budgets = redis_rate.NewLimiter(rateClient{s.client, s.combiner})
	}
	s.keys = newMemories[[sha256.Size]byte, storedKey](o.CacheEntries)
	s.accounts = newMemories[policy.AccountID, storedAccount](o.CacheEntries)
	return s, nil
}

// connect makes the client and the committer.
func (s *Store) connect() error {
	if s.o.Redis == nil {
		return s.openEmbedded()
	}
	s.lookups, s.client = s.o.Redis.clients(s.o.Timeout, s.o.Durability.Timeout)
	cluster := isCluster(s.client)
	s.markers = newMarkers(s.o.Prefix, cluster)
	s.data, s.reader = redisData{s.client}, newReader(s.lookups, s.markers, s.o.Timeout, s.o.Log)
	one := newScriptCommitter(s.client, s.markers, s.identityNow)
	one.durability = s.o.Durability
	one.landed = func(c change, slot int, position uint64) {
		s.rollback.landed(c, slot, position, s.o.Now())
		if c.publishes() {
			s.hearing.published()
		}
	}
	s.committer = one
	if cluster {
		s.committer = &clusterCommitter{one: one, later: s.finishLater}
	}
	return nil
}

// Close ends the store's background work and its connections.
func (s *Store) Close() error {
	s.stop()
	s.background.Wait()
	s.keys.cache.StopAllGoroutines()
	s.accounts.cache.StopAllGoroutines()
	return s.disconnect()
}

func (s *Store) disconnect() error {
	if s.embedded != nil {
		return s.embedded.close()
	}
	if s.lookups == s.client {
		return s.client.Close()
	}
	return errors.Join(s.lookups.Close(), s.client.Close())
}

// Ready returns nil when lookups can be answered, and otherwise an error that
// says why not.
func (s *Store) Ready(ctx context.Context) error {
	name := s.names.store()
	v, err := s.reader.get(ctx, name)
	if err == nil {
		err = s.trustMarker(v)
	}
	if err == nil && s.embedded == nil && v.raw != s.identityNow() {
		err = errEmptied
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// identityNow is the identity of the store; "" before it was reached.
func (s *Store) identityNow() string {
	if identity := s.identity.Load(); identity != nil {
		return *identity
	}
	return ""
}

// stopwatch returns how long ago it was called.
func stopwatch() func() time.Duration {
	begun := time.Now() //nolint:forbidigo // what arrives in time is measured by the process's own clock, however the injected one stands
	return func() time.Duration { return time.Since(begun) }
}

// names spells the Redis keys. The account's id is a hash tag, so that all of
// an account's own keys share a slot of a Cluster.
type names struct{ prefix string }

func (n names) store() string                          { return n.prefix + "store" }
func (n names) importing() string                      { return n.prefix + "importing" }
func (n names) changed() string                        { return n.prefix + "changed" }
func (n names) accounts() string                       { return n.prefix + "accounts" }
func (n names) budget(subject string) string           { return n.prefix + "budget:" + subject }
func (n names) once(name string) string                { return n.prefix + "once:" + name }
func (n names) key(tokenHash string) string            { return n.prefix + "key:" + tokenHash }
func (n names) account(id policy.AccountID) string     { return n.prefix + "account:{" + string(id) + "}" }
func (n names) accountKeys(id policy.AccountID) string { return n.account(id) + ":keys" }
func (n names) used(id policy.AccountID) string        { return n.account(id) + ":used" }
func (n names) audit(id policy.AccountID) string       { return n.account(id) + ":audit" }
func (n names) users(id policy.AccountID) string       { return n.account(id) + ":users" }
func (n names) email(hash string) string               { return n.prefix + "email:" + hash }
func (n names) identity(hash string) string            { return n.prefix + "identity:" + hash }
func (n names) session(hash string) string             { return n.prefix + "session:" + hash }
func (n names) room(id policy.AccountID) string        { return n.account(id) + ":room" }
func (n names) refused(id policy.AccountID) string     { return n.account(id) + ":refused" }

// besideAccounts is a key in the slot of the list of accounts.
func (n names) besideAccounts(name string) string { return n.prefix + name + ":{" + n.accounts() + "}" }

// inStoresSlot is a key in the slot of the store's identity.
func (n names) inStoresSlot(name string) string { return n.prefix + name + ":{" + n.store() + "}" }

// beat is a key of a node in the slot of a marker.
func (n names) beat(marker, node string) string {
	if _, tag, ok := strings.Cut(marker, "{"); ok {
		return n.prefix + "beat:" + node + ":{" + tag
	}
	return n.prefix + "beat:" + node
}

// ofMessage is the record that a message is about; "" for none.
func (n names) ofMessage(message string) string {
	what, _, _ := strings.Cut(message, sentAt)
	if hash, ok := strings.CutPrefix(what, keyChanged); ok && isHash(hash) {
		return n.key(hash)
	}
	if id, ok := strings.CutPrefix(what, accountChanged); ok && policy.ValidAccountID(id) {
		return n.account(policy.AccountID(id))
	}
	return ""
}

func (n names) user(account policy.AccountID, id UserID) string {
	return n.account(account) + ":user:" + string(id)
}

// sessions is the index of a user's sessions.
func (n names) sessions(account policy.AccountID, id UserID) string {
	return n.user(account, id) + ":sessions"
}

// notNil makes "there is no such value" no error.
func notNil(err error) error {
	if errors.Is(err, redis.Nil) {
		return nil
	}
	return err
}

func (s *Store) catalogue() policy.Catalogue { return *s.permitted.Load() }

// SetCatalogue replaces the catalogue by which the permissions of accounts are
// read. Every lookup that begins later goes by the new one.
func (s *Store) SetCatalogue(c policy.Catalogue) {
	s.permitted.Store(&c)
	// What was read before is not remembered from here on; see memories.
	s.accounts.forgetAll()
	s.changed(Change{})
}
