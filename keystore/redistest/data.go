package redistest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// dataFiles are what a server keeps its data in. What makes it that server, its
// configuration and nodes.conf, is not among them.
func dataFiles() []string { return []string{"appendonlydir", "dump.rdb"} }

// Copy copies what the server has on disk into a new folder, while it runs or
// not: the state to which PutBack can later put it, or another server.
func (s *Server) Copy(folder string) error {
	for _, name := range dataFiles() {
		if err := copyAll(filepath.Join(s.Folder, name), filepath.Join(folder, name)); err != nil {
			return err
		}
	}
	return nil
}

// Snapshot has the server write its whole state to the disk (SAVE), as one does
// without an append-only file before Copy.
func (s *Server) Snapshot(ctx context.Context) error { return s.Client.Save(ctx).Err() }

// PutBack gives a server that does not run the data of a copy; "" for none at
// all.
func (s *Server) PutBack(folder string) error {
	for _, name := range dataFiles() {
		if err := os.RemoveAll(filepath.Join(s.Folder, name)); err != nil {
			return err
		}
	}
	if folder == "" {
		return nil
	}
	for _, name := range dataFiles() {
		if err := copyAll(filepath.Join(folder, name), filepath.Join(s.Folder, name)); err != nil {
			return err
		}
	}
	return nil
}

// RestartEmpty kills the server and starts it without data.
func (s *Server) RestartEmpty(ctx context.Context) error { return s.RestartWith(ctx, "") }

// RestartWith kills the server and starts it with the data of a copy.
func (s *Server) RestartWith(ctx context.Context, folder string) error {
	s.Kill()
	return errors.Join(s.PutBack(folder), s.Start(ctx))
}

// copyAll copies a file or a folder that may be missing.
func copyAll(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		under, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, under)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o700)
		}
		content, err := os.ReadFile(path) // #nosec G304 G122 -- the tests' own
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
			return err
		}
		return os.WriteFile(target, content, 0o600) // #nosec G703 -- the tests' own
	})
}
