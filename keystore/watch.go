package keystore

import (
	"context"
	"encoding/hex"
	"errors"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/zap"

	"gatehouse/policy"
)

const (
	// watchPatience is for how long the subscription may be silent before it
	// is asked for a sign of life, and then for how long before it is given up.
	watchPatience = time.Second
	// watchPause is how long to wait before the next try.
	watchPause = 100 * time.Millisecond

	keyChanged     = "key:"
	accountChanged = "account:"
	// sentAt separates what has changed from when that was, in Unix microseconds
	// of the node that changed it.
	sentAt = "@"
)

// watch hears of changes that other nodes make, until ctx ends. While it
// hears nothing, nothing is answered from a cache.
func (s *Store) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.bind(ctx)
		if err == nil {
			err = s.follow(ctx)
		}
		if s.subscribed.Swap(false) && ctx.Err() == nil {
			s.o.Log.Warn("changes are not heard of at the moment: nothing is cached", zap.Error(err))
		}
		pause := time.NewTimer(watchPause)
		select {
		case <-ctx.Done():
		case <-pause.C:
		}
		pause.Stop()
	}
}

// follow handles one subscription until it breaks.
func (s *Store) follow(ctx context.Context) error {
	subscription := s.client.Subscribe(ctx, s.names.changed())
	defer func() { _ = subscription.Close() }() // it is given up either way
	// A receive under way does not hear of the end of ctx by itself.
	defer context.AfterFunc(ctx, func() { _ = subscription.Close() })()
	asked := false
	for {
		message, err := subscription.ReceiveTimeout(ctx, watchPatience)
		var netErr net.Error
		switch {
		case err != nil && errors.As(err, &netErr) && netErr.Timeout() && !asked && ctx.Err() == nil:
			if err := subscription.Ping(ctx); err != nil {
				return err
			}
			asked = true
			continue
		case err != nil:
			return err
		}
		asked = false
		switch m := message.(type) {
		case *redis.Subscription:
			// What was published before this moment went unheard.
			s.keys.forgetAll()
			s.accounts.forgetAll()
			s.subscribed.Store(true)
			s.health.reconnected()
			s.changed(Change{})
		case *redis.Message:
			s.forget(m.Payload)
			s.propagated(m.Payload)
		}
	}
}

// forget empties the caches of what a message says has changed, and tells of
// it.
func (s *Store) forget(message string) {
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
	micros, err := strconv.ParseInt(at, 10, 64)
	if dated && err == nil && s.o.Propagated != nil {
		s.o.Propagated(max(0, s.o.Now().Sub(time.UnixMicro(micros))))
	}
}

// publishKey and publishAccount are the steps by which other nodes hear of a
// change.
func (s *Store) publishKey(tokenHash string) step {
	return s.publish(keyChanged + tokenHash)
}

func (s *Store) publishAccount(id policy.AccountID) step {
	return s.publish(accountChanged + string(id))
}

// publish names the channel also as the step's key: a Cluster sends a command
// by its key, and a Redis user may be limited to keys with the prefix.
func (s *Store) publish(message string) step {
	message += sentAt + strconv.FormatInt(s.o.Now().UnixMicro(), 10)
	return step{Kind: stepPublish, Key: s.names.changed(), Field: s.names.changed(), Value: message}
}

// commit commits a change, and forgets what it changes before it returns:
// after an acknowledged change this node answers with nothing older. It
// forgets also when the outcome is unknown.
func (s *Store) commit(ctx context.Context, c change) error {
	if err := s.health.writable(); err != nil {
		return err
	}
	if c.event != nil {
		add, err := s.note(s.names.audit(c.event.event.Account), c.event)
		if err != nil {
			return err
		}
		c.steps = append([]step{add}, c.steps...)
	}
	err := s.committer.commit(ctx, c)
	for _, st := range c.steps {
		if st.Kind == stepPublish {
			s.forget(st.Value)
		}
	}
	switch {
	case err == nil && c.event != nil:
		s.logEvent(&c.event.event, nil)
		return nil
	case err == nil || errors.Is(err, errMoved) || errors.Is(err, ErrKeyLimit):
		return err
	}
	return errors.Join(ErrUnavailable, err)
}
