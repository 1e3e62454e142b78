package redistest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// SmallDisk returns a folder with a file system of its own of that size, for
// the length of the test. Where the test may not mount one, it skips, aloud.
func SmallDisk(tb testing.TB, size int64) string {
	tb.Helper()
	folder := tb.TempDir()
	if err := syscall.Mount("tmpfs", folder, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", size)); err != nil {
		tb.Skipf("SKIPPED: a small file system cannot be mounted here, which needs the right to (CAP_SYS_ADMIN): %v", err)
	}
	tb.Cleanup(func() {
		if err := syscall.Unmount(folder, syscall.MNT_DETACH); err != nil {
			tb.Errorf("unmount %s: %v", folder, err)
		}
	})
	return folder
}

const filler = "filler"

// FillDisk writes into a folder of SmallDisk until nothing more fits.
func FillDisk(folder string) error {
	file, err := os.OpenFile(filepath.Join(folder, filler), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) // #nosec G304 -- the tests' own
	if err != nil {
		return err
	}
	block := make([]byte, 1<<16)
	for len(block) > 0 && err == nil {
		if _, err = file.Write(block); errors.Is(err, syscall.ENOSPC) {
			block, err = block[:len(block)/2], nil
		}
	}
	return errors.Join(err, file.Close())
}

// FreeDisk ends FillDisk.
func FreeDisk(folder string) error { return os.Remove(filepath.Join(folder, filler)) }

func (s *starter) folder() string {
	s.tb.Helper()
	if s.options.Disk == 0 {
		return s.tb.TempDir()
	}
	return SmallDisk(s.tb, s.options.Disk)
}
