package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"gatehouse/cmd/gatehouse/config"
)

const (
	healthTimeout   = 2 * time.Second
	healthPause     = 200 * time.Millisecond
	maxHealthAnswer = 4 << 10
)

type checkCommand struct {
	Config string `help:"The configuration file. Needed, but for --schema." xor:"what" placeholder:"FILE"`
	Online bool   `help:"Connect to the store too, and say what is wrong with it and its servers. With an embedded store, the gateway must be stopped." xor:"tests"`
	Tests  string `help:"A file of requests and what is to be decided about them: see docs/explain.md. Ends with 1 where one is decided otherwise." xor:"tests" placeholder:"FILE"`
	Schema bool   `help:"Print a JSON Schema of the configuration, for editors: see docs/configuration.md." xor:"what,tests"`
}

// Run loads the configuration, and says what it would decide; or it prints the
// schema of all.
func (c *checkCommand) Run(t *terminal) error {
	if c.Schema {
		_, err := t.out.Write(config.Schema())
		return err
	}
	if c.Config == "" {
		return usageError{errors.New("missing flags: --config=FILE or --schema")}
	}
	loaded, err := config.Load(c.Config, t.lookupEnv)
	if err != nil {
		return usageError{err}
	}
	if c.Tests != "" {
		return checkDecisions(t, loaded, c.Tests)
	}
	if c.Online {
		if err := checkStore(t, loaded); err != nil {
			return fmt.Errorf("%s: %w", c.Config, err)
		}
	}
	_, err = fmt.Fprintf(t.out, "%s is valid: %s, %s, %s\n",
		c.Config, counted(len(loaded.Routes), "route"), counted(len(loaded.Upstreams), "upstream"), counted(len(loaded.Products), "product"))
	return err
}

// checkStore connects to the store, and prints what should be looked at. What
// customers would suffer from is an error.
func checkStore(t *terminal, loaded *config.Config) error {
	options, err := offlineOptions(loaded)
	if err != nil {
		return err
	}
	found, err := inspect(t, options)
	if err != nil {
		return err
	}
	severe := 0
	for _, w := range found.Health.Warnings {
		kind := "warning"
		if w.Warning.Severe() {
			kind = "error"
			severe++
		}
		if err := t.print("store: %s: %s: %s\n", kind, w.Warning, w.Detail); err != nil {
			return err
		}
	}
	if err := notUsable(found); err != nil {
		return err
	}
	if severe > 0 {
		return fmt.Errorf("the store has %s", counted(severe, "error"))
	}
	return t.print("store: %s\n", found.State)
}

// counted is how many things there are, in words.
func counted(n int, thing string) string {
	if n != 1 {
		thing += "s"
	}
	return fmt.Sprintf("%d %s", n, thing)
}

type healthCommand struct {
	Admin string        `help:"The operators' address of the gateway." default:"http://127.0.0.1:9090" env:"GATEHOUSE_ADMIN_URL" placeholder:"URL"`
	Ready bool          `help:"Ask whether it is ready for requests, and not only alive: it has started, and is not stopping." xor:"what"`
	Store bool          `help:"Ask whether it is ready and can look keys up, too." xor:"what"`
	Wait  time.Duration `help:"For how long to go on asking until it is." placeholder:"DURATION"`
}

// Run asks the gateway once, or for as long as it may wait.
func (c *healthCommand) Run(t *terminal) error {
	waited, cancel := context.WithTimeout(t.ctx, c.Wait)
	defer cancel()
	for {
		said, err := c.ask(t)
		if err == nil {
			return t.print("%s\n", said)
		}
		var wrong usageError
		if errors.As(err, &wrong) || !sleep(waited, healthPause) {
			return err
		}
	}
}

// sleep reports false where ctx ends before.
func sleep(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// ask asks the gateway once, and returns what it said.
func (c *healthCommand) ask(t *terminal) (string, error) {
	path := "/livez"
	switch {
	case c.Store:
		path = "/readyz?store=1"
	case c.Ready:
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(t.ctx, healthTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(c.Admin, "/")+path, nil)
	if err != nil {
		return "", usageError{fmt.Errorf("--admin %s: %w", c.Admin, err)}
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", unreachableError{fmt.Errorf("no gateway reached: %w", err)}
	}
	said, err := io.ReadAll(io.LimitReader(answer.Body, maxHealthAnswer))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return "", unreachableError{fmt.Errorf("the answer broke off: %w", err)}
	}
	if answer.StatusCode != http.StatusOK {
		return "", errors.New(strings.TrimSpace(string(said)))
	}
	return strings.TrimSpace(string(said)), nil
}

type versionCommand struct{}

// Run prints what this binary was built from.
func (versionCommand) Run(t *terminal) error {
	_, err := fmt.Fprintln(t.out, "gatehouse "+version())
	return err
}
