package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/keystore"
)

type exportCommand struct {
	Admin  string `help:"The operators' address of a running gateway." default:"http://127.0.0.1:9090" env:"GATEHOUSE_ADMIN_URL" placeholder:"URL"`
	Config string `help:"Read the store of this configuration itself, and ask no gateway. With an embedded store, the gateway must be stopped." placeholder:"FILE"`
	Out    string `help:"The file to write, which must not exist; - for the standard output, which must be no terminal." required:"" placeholder:"FILE"`
}

// Run writes the export. A file has its name only once it is whole.
func (c *exportCommand) Run(t *terminal) error {
	if c.Out == "-" {
		if isTerminal(t.out) {
			return usageError{errors.New("--out -: an export holds password hashes and second factors, and is not for a terminal; name a file, or a pipe")}
		}
		return c.write(t, t.out)
	}
	if _, err := os.Lstat(c.Out); err == nil {
		return usageError{fmt.Errorf("--out %s: the file exists already", c.Out)}
	}
	temp, err := os.CreateTemp(filepath.Dir(c.Out), filepath.Base(c.Out)+".part-*") // nobody else may read it
	if err != nil {
		return fmt.Errorf("export: %w", err)
	}
	err = c.write(t, temp)
	var info keystore.ExportInfo
	if err == nil {
		info, err = settle(temp)
	}
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), c.Out)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return t.print("%s: %d accounts, %d keys, %d users\n", c.Out, info.Accounts, info.Keys, info.Users)
}

// settle makes a file durable, and reads it back.
func settle(f *os.File) (keystore.ExportInfo, error) {
	_, err := f.Seek(0, io.SeekStart)
	if err = errors.Join(err, f.Sync()); err != nil {
		return keystore.ExportInfo{}, err
	}
	return keystore.CheckExport(f)
}

func isTerminal(w io.Writer) bool {
	f, is := w.(*os.File)
	if !is {
		return false
	}
	about, err := f.Stat()
	return err != nil || about.Mode()&os.ModeCharDevice != 0
}

func (c *exportCommand) write(t *terminal, out io.Writer) error {
	buffered := bufio.NewWriterSize(out, 64<<10)
	if c.Config == "" {
		return errors.Join(c.download(t, buffered), buffered.Flush())
	}
	loaded, err := config.Load(c.Config, t.lookupEnv)
	if err != nil {
		return usageError{err}
	}
	if e := loaded.Store.Embedded; e != nil {
		if _, err := os.Stat(e.File); err != nil {
			return fmt.Errorf("export: the store: %w", err)
		}
	}
	store, err := openForBackup(t.ctx, loaded, true)
	if err != nil {
		return err
	}
	_, err = store.Export(t.ctx, buffered)
	return errors.Join(err, buffered.Flush(), store.Close())
}

// download asks a running gateway. What it sends may be as long as it likes.
func (c *exportCommand) download(t *terminal, out io.Writer) error {
	flags := adminFlags{Admin: c.Admin}
	r, err := flags.remote(t)
	if err != nil {
		return err
	}
	answer, err := r.send(t, http.MethodGet, "/export", nil, 0)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		_, err := readAnswer(answer)
		return err
	}
	_, err = io.Copy(out, answer.Body)
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return unreachableError{fmt.Errorf("the export broke off: %w", err)}
	}
	return nil
}

// openForBackup opens the store of the configuration. One that is only read is
// not begun where there is none.
func openForBackup(ctx context.Context, c *config.Config, readOnly bool) (*keystore.Store, error) {
	options, err := offlineOptions(c)
	if err != nil {
		return nil, err
	}
	options.ReadOnly = readOnly
	return openWhatThereIs(ctx, options)
}
