package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/keystore"
)

type importCommand struct {
	File      string `arg:"" help:"The export."`
	Config    string `help:"The configuration whose store it is brought into. With an embedded store, the gateway must be stopped." required:"" placeholder:"FILE"`
	DryRun    bool   `help:"Say what would become of each record, and change nothing."`
	Replace   bool   `help:"Put what the export has in the place of what is there and differs, also where that is newer, or allows less."`
	BringBack bool   `help:"Bring also back what was revoked or deleted in this store."`
}

// maxNotes is how many records are named; the others are counted.
const maxNotes = 100

// Run imports the file.
func (c *importCommand) Run(t *terminal) error {
	loaded, err := config.Load(c.Config, t.lookupEnv)
	if err != nil {
		return usageError{err}
	}
	file, err := os.Open(c.File)
	if err != nil {
		return usageError{err}
	}
	defer func() { _ = file.Close() }() // it was only read
	forget, err := c.elsewhere(t.ctx, loaded)
	if err != nil {
		return err
	}
	defer forget()
	store, err := openForBackup(t.ctx, loaded, c.DryRun)
	if err != nil {
		return err
	}
	named := 0
	options := keystore.ImportOptions{DryRun: c.DryRun, Replace: c.Replace, BringBack: c.BringBack, Noted: func(n keystore.ImportNote) {
		if named++; named <= maxNotes {
			_ = t.print("%s %s of account %s: %s\n", n.Kind, plain(n.ID), plain(string(n.Account)), meaning(n.Outcome)) // the sums follow
		}
	}}
	done, err := store.Import(t.ctx, file, options)
	err = errors.Join(err, store.Close())
	if errors.Is(err, keystore.ErrBadExport) || errors.Is(err, keystore.ErrOtherTokens) {
		return fmt.Errorf("%s: nothing was changed: %w", c.File, err)
	}
	if errors.Is(err, keystore.ErrLeased) {
		return fmt.Errorf("%w: nothing was changed; run it again then", err)
	}
	if err != nil {
		err = fmt.Errorf("%w; what was imported stays: run it again to complete it", err)
	}
	if named > maxNotes {
		err = errors.Join(err, t.print("… and %d more\n", named-maxNotes))
	}
	return errors.Join(t.sums(done, c.DryRun), err, conflicts(done))
}

// elsewhere lets a dry run have an embedded store of its own where the file of
// the configuration does not exist.
func (c *importCommand) elsewhere(ctx context.Context, loaded *config.Config) (forget func(), err error) {
	e := loaded.Store.Embedded
	if !c.DryRun || e == nil {
		return func() {}, nil
	}
	if _, err := os.Lstat(e.File); !errors.Is(err, os.ErrNotExist) {
		return func() {}, nil
	}
	folder, err := os.MkdirTemp("", "gatehouse-import-")
	if err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	forget = func() { _ = os.RemoveAll(folder) }
	loaded.Store.Embedded = &config.Embedded{File: filepath.Join(folder, "gatehouse.db.jsonl")}
	if err := initStore(ctx, loaded); err != nil {
		forget()
		return nil, fmt.Errorf("import: %w", err)
	}
	return forget, nil
}

// meaning says what has become of a record that was not simply created.
func meaning(o keystore.ImportOutcome) string {
	switch o {
	case keystore.ImportReplaced:
		return "replaced"
	case keystore.ImportKept:
		return "kept: what is there differs (--replace replaces it)"
	case keystore.ImportRemoved:
		return "left out: it was removed here (--bring-back brings it back)"
	case keystore.ImportExpired:
		return "left out: it has expired"
	case keystore.ImportConflict:
		return "conflict: its id, its account's id or its e-mail address is another's here"
	case keystore.ImportCreated, keystore.ImportUnchanged:
	}
	return string(o)
}

func (t *terminal) sums(done keystore.Imported, dryRun bool) error {
	if len(done) == 0 {
		return nil
	}
	outcomes := []keystore.ImportOutcome{
		keystore.ImportCreated, keystore.ImportUnchanged, keystore.ImportReplaced, keystore.ImportKept,
		keystore.ImportRemoved, keystore.ImportExpired, keystore.ImportConflict,
	}
	head := []string{""}
	if dryRun {
		head[0] = "WOULD BE"
	}
	for _, o := range outcomes {
		head = append(head, string(o))
	}
	rows := [][]string{head}
	for _, kind := range []keystore.ImportKind{keystore.ImportedAccount, keystore.ImportedKey, keystore.ImportedUser} {
		row := []string{string(kind) + "s"}
		for _, o := range outcomes {
			row = append(row, fmt.Sprint(done[kind][o]))
		}
		rows = append(rows, row)
	}
	return t.table(rows)
}

// conflicts is an error where something of the export is not there now.
func conflicts(done keystore.Imported) error {
	n := 0
	for _, outcomes := range done {
		n += outcomes[keystore.ImportConflict]
	}
	if n == 0 {
		return nil
	}
	return fmt.Errorf("%d records are not imported, because of conflicts", n)
}
