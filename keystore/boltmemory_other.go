//go:build !linux

package keystore

// releasePages does nothing here: the system takes pages of files back by itself
// when it needs memory.
func (e *embedded) releasePages() {}
