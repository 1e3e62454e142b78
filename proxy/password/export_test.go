package password

import "context"

// Occupy takes the turn of a password, for tests.
func (h *Hasher) Occupy(ctx context.Context) (leave func(), err error) { return h.enter(ctx) }
