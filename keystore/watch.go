package keystore

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"gatehouse/policy"
)

const (
	// watchPause is how long to wait before the next try.
	watchPause = 100 * time.Millisecond

	keyChanged     = "key:"
	accountChanged = "account:"
	beatMessage    = "beat:"
	// sentAt separates what has changed from when that was, in Unix microseconds
	// of the node that changed it; sentBy and sentHow that from the node, and from
	// what was done; sentWhere from where that is in its slot.
	sentAt    = "@"
	sentBy    = "!"
	sentWhere = "#"

	howRemoved = "removed"
	howChanged = "changed"
)

// watch is subscribed to the changes that other nodes make, until ctx ends.
// While it is not, nothing is answered from a cache.
func (s *Store) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.bind(ctx)
		if err == nil {
			err = s.follow(ctx)
		} else {
			s.report("", err)
		}
		if s.subscribed.Swap(false) && ctx.Err() == nil {
			s.o.Log.Warn("not subscribed to changes at the moment: nothing is cached", zap.Error(err))
		}
		s.hearing.lost()
		pause := time.NewTimer(watchPause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// follow handles one subscription until it breaks, or until beats do not come
// back on it: then another one may reach the server that takes changes now.
func (s *Store) follow(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.cutSubscription.Store(&cancel)
	subscription := s.client.Subscribe(ctx, s.names.changed())
	defer func() { _ = subscription.Close() }() // it is given up either way
	// A receive under way does not notice the end of ctx by itself.
	defer context.AfterFunc(ctx, func() { _ = subscription.Close() })()
	for {
		message, err := subscription.ReceiveTimeout(ctx, 0)
		if err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
		switch m := message.(type) {
		case *redis.Subscription:
			// What was published before this moment was missed.
			s.unverify()
			s.subscribed.Store(true)
			s.rollback.poke()
			s.health.reconnected()
		case *redis.Message:
			s.received(m.Payload)
		}
	}
}

var errDeaf = errors.New("what this node publishes does not come back")

// resubscribe ends the subscription, so that watch begins another.
func (s *Store) resubscribe() {
	if cut := s.cutSubscription.Load(); cut != nil {
		(*cut)(errDeaf)
	}
}

// received handles a message of the channel.
func (s *Store) received(message string) {
	if s.hearing.arrived(message, s.elapsed()) {
		return
	}
	s.invalidate(message)
	s.propagated(message)
	m := parseMessage(message)
	if m.node == "" || m.node == s.hearing.node {
		return
	}
	s.hearing.changeArrived(m.node)
	if m.name = s.names.ofMessage(message); m.name != "" && m.positioned {
		_, slot := s.markers.of(m.name)
		s.markers.saw(slot, m.position)
		s.rollback.heard(m.name, slot, m.position, m.how == howRemoved, s.o.Now())
	}
}

// sentMessage is what a message says behind what has changed. Older gateways
// send the time alone.
type sentMessage struct {
	name, node, how string
	position        uint64
	positioned      bool
}

func parseMessage(message string) sentMessage {
	_, rest, _ := strings.Cut(message, sentAt)
	rest, at, _ := strings.Cut(rest, sentWhere)
	parts := strings.Split(rest, sentBy)
	if len(parts) != 3 {
		return sentMessage{}
	}
	m := sentMessage{node: parts[1], how: parts[2]}
	m.position, m.positioned = parsePosition(at)
	return m
}

// invalidate empties the caches of what a message says has changed, and tells
// of it.
func (s *Store) invalidate(message string) {
	message, _, _ = strings.Cut(message, sentAt)
	if id, ok := strings.CutPrefix(message, accountChanged); ok {
		s.accounts.forget(policy.AccountID(id))
		s.changed(Change{account: policy.AccountID(id)})
		return
	}
	name, ok := strings.CutPrefix(message, keyChanged)
	hash, err := hex.DecodeString(name)
	if !ok || err != nil || len(hash) != len(Token{}.hash) {
		return
	}
	token := [len(Token{}.hash)]byte(hash)
	s.keys.forget(token)
	s.changed(Change{token: &token})
}

// propagated tells how long the change that a message is about took to get
// here. Clocks that differ between nodes make it wrong by as much; nothing goes
// by it.
func (s *Store) propagated(message string) {
	_, at, dated := strings.Cut(message, sentAt)
	at, _, _ = strings.Cut(at, sentBy)
	micros, err := strconv.ParseInt(at, 10, 64)
	if dated && err == nil && s.o.Propagated != nil {
		s.o.Propagated(max(0, s.o.Now().Sub(time.UnixMicro(micros))))
	}
}

// publishKey and publishAccount are the steps by which other nodes are told of a
// change.
func (s *Store) publishKey(tokenHash string) step {
	return step{Kind: stepPublish, Key: s.names.key(tokenHash), Field: s.names.changed(), Value: s.dated(keyChanged + tokenHash)}
}

func (s *Store) publishAccount(id policy.AccountID) step {
	return step{Kind: stepPublish, Key: s.names.account(id), Field: s.names.changed(), Value: s.dated(accountChanged + string(id))}
}

// dated is a message with the time and the node that sends it now.
func (s *Store) dated(message string) string {
	what, _, _ := strings.Cut(message, sentAt)
	return what + sentAt + strconv.FormatInt(s.o.Now().UnixMicro(), 10) + sentBy + s.hearing.node + sentBy + howChanged
}

// asRemoved says in the messages of a change which records it removes.
func asRemoved(steps []step) {
	for i, st := range steps {
		if st.Kind == stepPublish && slices.ContainsFunc(steps, func(other step) bool { return other.Kind == stepDel && other.Key == st.Key }) {
			steps[i].Value = strings.TrimSuffix(st.Value, howChanged) + howRemoved
		}
	}
}
