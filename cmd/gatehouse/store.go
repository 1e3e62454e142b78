package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"go.uber.org/zap"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/keystore"
)

type storeCommand struct {
	Init    storeInitCommand    `cmd:"" help:"Make a new, empty store. Once for each store: a gateway never does it by itself, because a store that has lost its data looks the same."`
	Status  storeStatusCommand  `cmd:"" help:"Say what the store is, and what its servers say of themselves. Ends with 1 unless lookups can be answered."`
	Accept  storeAcceptCommand  `cmd:"" help:"Take a store that lacks acknowledged changes for what it is from now on: see docs/operations.md."`
	Upgrade storeUpgradeCommand `cmd:"" help:"Have the store keep records as this version does, once no gateway of an earlier version uses it. May be repeated."`
}

type storeFlags struct {
	Config string `help:"The configuration that names the store. With an embedded store, the gateway must be stopped." required:"" placeholder:"FILE"`
}

// options are those of the configuration's store.
func (f *storeFlags) options(t *terminal) (keystore.Options, error) {
	loaded, err := config.Load(f.Config, t.lookupEnv)
	if err != nil {
		return keystore.Options{}, usageError{err}
	}
	return offlineOptions(loaded)
}

// offlineOptions are those of a store that no gateway is part of.
func offlineOptions(c *config.Config) (keystore.Options, error) {
	options, err := storeOptions(c)
	if err != nil {
		return keystore.Options{}, err
	}
	options.Log = zap.NewNop()
	keystore.LogClient(options.Log)
	return options, nil
}

type storeInitCommand struct {
	storeFlags
	IfAbsent bool `help:"End with 0 where there is a store already, and leave it as it is."`
}

// Run makes the store.
func (c *storeInitCommand) Run(t *terminal) error {
	options, err := c.options(t)
	if err != nil {
		return err
	}
	err = newStore(t, options)
	switch {
	case errors.Is(err, keystore.ErrStoreExists) && c.IfAbsent:
		return t.print("there is a store already\n")
	case errors.Is(err, keystore.ErrStoreExists):
		return fmt.Errorf("%w: nothing was changed; gatehouse store status says what it is", err)
	case err != nil:
		return err
	}
	return t.print("a new store was made\n")
}

// newStore makes a store where there is none.
func newStore(t *terminal, o keystore.Options) error {
	if o.EmbeddedFile != "" {
		if _, err := os.Stat(o.EmbeddedFile); err == nil {
			return fmt.Errorf("%s: %w", o.EmbeddedFile, keystore.ErrStoreExists)
		}
	}
	return keystore.Init(t.ctx, o)
}

type storeStatusCommand struct{ storeFlags }

// Run says what the store is.
func (c *storeStatusCommand) Run(t *terminal) error {
	options, err := c.options(t)
	if err != nil {
		return err
	}
	found, err := inspect(t, options)
	if err != nil {
		return err
	}
	rows := [][]string{{"State", string(found.State)}}
	if found.Store.Identity != "" {
		rows = append(rows, []string{"Store", found.Store.Identity})
	}
	if options.Redis != nil && found.Cause == nil {
		h := found.Health
		rows = append(rows, []string{"Clock", h.ClockOffset.Round(time.Millisecond).String()},
			[]string{"Replicas", fmt.Sprint(h.Replicas)}, []string{"Memory", fmt.Sprintf("%.0f %%", 100*h.MemoryUsed)},
			[]string{"Evicted", fmt.Sprint(h.Evicted)})
	}
	for _, w := range found.Health.Warnings {
		rows = append(rows, []string{"Warning", string(w.Warning) + ": " + w.Detail})
	}
	return errors.Join(t.table(rows), notUsable(found))
}

// inspect says what a store is. An embedded one is not made by looking.
func inspect(t *terminal, o keystore.Options) (keystore.Condition, error) {
	if o.EmbeddedFile != "" {
		if _, err := os.Stat(o.EmbeddedFile); errors.Is(err, os.ErrNotExist) {
			return keystore.Condition{State: keystore.StateEmptied, Cause: err}, nil
		}
	}
	return keystore.Inspect(t.ctx, o)
}

// notUsable is an error where keys cannot be looked up, and says what to do.
func notUsable(found keystore.Condition) error {
	switch found.State {
	case keystore.StateOK, keystore.StateLegacy:
		return nil
	case keystore.StateEmptied:
		return fmt.Errorf("%w; restore its data; where there has never been one, gatehouse store init makes it", found.Cause)
	case keystore.StateOlder, keystore.StateUnavailable:
	}
	return fmt.Errorf("the store cannot be asked: %w", found.Cause)
}

type storeAcceptCommand struct{ storeFlags }

// Run accepts the store.
func (c *storeAcceptCommand) Run(t *terminal) error {
	options, err := c.options(t)
	if err != nil {
		return err
	}
	if err := keystore.Accept(t.ctx, options); err != nil {
		return err
	}
	return t.print("the store is accepted as it is\n")
}

type storeUpgradeCommand struct{ storeFlags }

// Run upgrades the store.
func (c *storeUpgradeCommand) Run(t *terminal) error {
	options, err := c.options(t)
	if err != nil {
		return err
	}
	written := 0
	if err := keystore.Upgrade(t.ctx, options, func(done int) { written = done }); err != nil {
		return err
	}
	return t.print("the store is of this version; %s written anew\n", counted(written, "record"))
}
