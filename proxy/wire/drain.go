package wire

import (
	"context"
	"net"
)

// Drain stops accepting, and returns when the server has taken every connection
// that was accepted and come back for another one, or when ctx ends. From then
// on Accept waits for Close: http.Server knows nothing of a connection between
// its Accept and its ConnContext, and Shutdown would not wait for it.
func (l *Listener) Drain(ctx context.Context) error {
	l.draining.Store(true)
	err := l.Listener.Close()
	select {
	case <-l.drained:
	case <-ctx.Done():
	}
	return err
}

// waitDrained is what Accept does when nothing is left to be handed over.
func (l *Listener) waitDrained() (net.Conn, error) {
	l.endDrain()
	<-l.ctx.Done()
	return nil, net.ErrClosed
}
