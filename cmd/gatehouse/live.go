package main

import (
	"context"
	"time"

	"gatehouse/keystore"
	"gatehouse/proxy"
)

// rereading finds keys in the store, and not in the node's cache.
type rereading struct{ store *keystore.Store }

func (r rereading) Lookup(ctx context.Context, t keystore.Token) (keystore.Entry, error) {
	return r.store.Reread(ctx, t)
}

// watchLive begins to watch over requests that last.
func (n *node) watchLive() error {
	live, err := proxy.NewLive(proxy.LiveOptions{Keys: rereading{n.store}, Subscribed: n.store.Hears, Now: time.Now, Metrics: n.registry})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		live.Run(ctx)
	}()
	n.closers = append(n.closers, func() error {
		stop()
		<-done
		return nil
	})
	n.live.Store(live)
	return nil
}

// changed passes on what the store says. The store, which live requests are
// looked up in, is open before there is anybody to tell.
func (n *node) changed(c keystore.Change) {
	if live := n.live.Load(); live != nil {
		live.Changed(c)
	}
}
