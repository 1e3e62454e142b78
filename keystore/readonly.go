package keystore

import "errors"

// ErrReadOnly comes with ErrUnavailable: the store answers lookups, and takes no
// changes at the moment. Nothing was changed.
var ErrReadOnly = errors.New("key store accepts no changes")
