package redistest

import (
	"context"
	"net"
	"slices"
	"sync"
	"time"
)

// Mode is what a Link does to connections.
type Mode int

// The modes of a Link. The zero value is Pass.
const (
	Pass     Mode = iota // nothing
	Refuse               // resets them, and every new one at once
	HalfOpen             // keeps them open, accepts new ones, and swallows all bytes, both ways
)

// Class is what a connection is for, found out from what its client sends.
type Class string

// The classes of connections to a Redis. On the bus of a Cluster, the class is
// the id of the node that opened the connection.
const (
	Clients       Class = "clients" // all that are nothing else, at first
	Subscriptions Class = "subscriptions"
	FromSentinels Class = "sentinels" // their subscriptions too
	FromReplicas  Class = "replicas"
)

// Link is a TCP proxy in front of a server that can fail as a network does. It
// may be used concurrently.
type Link struct {
	to     string
	listen net.Listener
	sniff  sniffer
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	all    sync.WaitGroup

	mu      sync.Mutex
	general treatment
	special map[Class]treatment
	conns   map[*connection]struct{}
}

type treatment struct {
	mode  Mode
	delay time.Duration // each way
}

// NewLink starts another Link to a server of a Topology, for one client alone
// that is to be cut off while others are not.
func NewLink(to string) (*Link, error) { return newLink(to, sniffRedis) }

func newLink(to string, sniff sniffer) (*Link, error) {
	ctx, cancel := context.WithCancel(context.Background())
	var config net.ListenConfig
	l, err := config.Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		cancel()
		return nil, err
	}
	link := &Link{to: to, listen: l, sniff: sniff, ctx: ctx, cancel: cancel, special: make(map[Class]treatment), conns: make(map[*connection]struct{})}
	link.all.Go(link.accept)
	return link, nil
}

// Addr is where clients connect to, as HOST:PORT.
func (l *Link) Addr() string { return l.listen.Addr().String() }

// Close ends the Link and its connections, and waits for their end.
func (l *Link) Close() {
	l.cancel()
	_ = l.listen.Close() // it may be closed already
	l.Cut()
	l.all.Wait()
}

// Set changes what happens to connections of these classes, or to all where
// there is none. Connections that swallowed bytes are reset when they are to
// pass again, as their two sides no longer agree.
func (l *Link) Set(mode Mode, only ...Class) { l.treat(treatment{mode: mode}, only) }

// Delay makes all bytes of connections of these classes, or of all, arrive so
// much later, each way. Set(Pass) ends it.
func (l *Link) Delay(d time.Duration, only ...Class) { l.treat(treatment{delay: d}, only) }

func (l *Link) treat(as treatment, only []Class) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(only) == 0 {
		l.general = as
		clear(l.special)
	}
	for _, class := range only {
		l.special[class] = as
	}
	for c := range l.conns {
		switch now := l.of(c.class).mode; {
		case now == Refuse, now == Pass && c.swallowed:
			c.reset()
		}
	}
}

// of is how connections of a class are treated; l.mu is held.
func (l *Link) of(class Class) treatment {
	if as, ok := l.special[class]; ok {
		return as
	}
	return l.general
}

// Cut resets the connections that there are, of these classes or all. New ones
// are made as before.
func (l *Link) Cut(only ...Class) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for c := range l.conns {
		if len(only) == 0 || slices.Contains(only, c.class) {
			c.reset()
		}
	}
}

// Connections counts those of a class that are open.
func (l *Link) Connections(class Class) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for c := range l.conns {
		if c.class == class {
			n++
		}
	}
	return n
}

func (l *Link) accept() {
	for {
		client, err := l.listen.Accept()
		if err != nil {
			return
		}
		l.all.Go(func() { l.connect(client) })
	}
}

// connect passes a connection on until it ends.
func (l *Link) connect(client net.Conn) {
	c := &connection{link: l, client: client, class: Clients}
	l.mu.Lock()
	l.conns[c] = struct{}{}
	mode := l.of(c.class).mode
	c.swallowed = mode == HalfOpen
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		c.reset()
		delete(l.conns, c)
		l.mu.Unlock()
	}()
	if mode == Refuse || l.ctx.Err() != nil {
		return
	}
	if mode == HalfOpen {
		swallow(client)
		return
	}
	var dialer net.Dialer
	server, err := dialer.DialContext(l.ctx, "tcp", l.to)
	if err != nil {
		return
	}
	l.mu.Lock()
	c.server = server
	refused := c.closed
	l.mu.Unlock()
	if refused {
		_ = server.Close() // nothing was sent to it
		return
	}
	var both sync.WaitGroup
	both.Go(func() { c.pass(client, server, true) })
	both.Go(func() { c.pass(server, client, false) })
	both.Wait()
}

func swallow(from net.Conn) {
	buffer := make([]byte, 4096)
	for {
		if _, err := from.Read(buffer); err != nil {
			return
		}
	}
}
