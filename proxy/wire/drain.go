package wire

import "context"

// Drain stops accepting, and returns when every connection that was accepted
// has been handed to the server, or when ctx ends. From then on Accept waits
// for Close: http.Server drops the first request of a connection that was still
// being made when its Shutdown began.
func (l *Listener) Drain(ctx context.Context) error {
	l.draining.Store(true)
	err := l.Listener.Close()
	select {
	case <-l.drained:
	case <-ctx.Done():
	}
	return err
}

// isDrained is for the error of an inner Accept. Where it comes of Drain, no
// further connection will be handed over.
func (l *Listener) isDrained() bool {
	if !l.draining.Load() {
		return false
	}
	l.endDrain()
	return true
}
