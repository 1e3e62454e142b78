package keystore

import (
	"context"
	"syscall"
	"unsafe"

	"go.etcd.io/bbolt"
)

// releasePages gives the pages of the file back that only a look at all of it has
// brought into the process. Those that are needed again come back from the
// system's cache. It is of use alone: where it fails, nothing is lost.
func (e *embedded) releasePages() {
	_ = e.view(context.Background(), func(tx *bbolt.Tx, _ int64) error {
		at := unsafe.Pointer(&aboutBucket[0]) // #nosec G103 -- any pointer: only a pointer may become another one
		begin := unsafe.Add(at, int(e.db.Info().Data)-int(uintptr(at)))
		return syscall.Madvise(unsafe.Slice((*byte)(begin), tx.Size()), syscall.MADV_DONTNEED) // #nosec G103 -- the mapping lasts as long as the transaction
	})
}
