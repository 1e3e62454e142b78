package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"gatehouse/keystore/redistest"
)

// smallDisk is what a server, or a gateway with its store in a file, has where
// its disk is to be full.
const smallDisk = 24 << 20

// fault is something that happens to a store.
type fault struct {
	name   string
	begin  func(ctx context.Context, s *site) error
	end    func(ctx context.Context, s *site) error
	option func(o *redistest.Options)
	// notAlone and notEmbedded say why a single Redis and an embedded store have no
	// such fault; "" where they do.
	notAlone, notEmbedded string
	// heals: where there are replicas, everything is normal again while the
	// fault goes on.
	heals bool
	// reads: requests go on to pass, where the store is a Redis.
	reads bool
	// copies: data from before some of the changes are needed.
	copies bool
	// takes: rights can be taken while it goes on.
	takes bool
}

// without says why a topology has no such fault, or "".
func (f fault) without(kind redistest.Kind) string {
	switch kind {
	case redistest.Standalone:
		return f.notAlone
	case embeddedKind:
		return f.notEmbedded
	case redistest.Sentinel, redistest.Cluster:
	}
	return ""
}

const (
	noReplica  = "a single server has no replica"
	noServer   = "there is no server beside the gateway"
	noWitness  = "nobody is left who knew more"
	noOtherEnd = "there is no connection"
)

// faults are the rows of the matrix.
func faults() []fault {
	link := func(o *redistest.Options) { o.Links = true }
	small := func(o *redistest.Options) { o.Fsync, o.Disk = redistest.EverySecond, smallDisk }
	return []fault{
		{name: "kill", begin: killVictim, end: startVictim, heals: true},
		{name: "stop", begin: stopVictim, end: contVictim, heals: true},
		{name: "restart-empty", begin: restartEmpty, end: restoreLast},
		{name: "restart-older", begin: restartOlder, end: acceptOlder, copies: true, notEmbedded: noWitness},
		{
			name: "failover", begin: planFailover, end: acceptOlder, option: link,
			notAlone: noReplica, notEmbedded: noServer,
		},
		{name: "partition", begin: partition(redistest.Refuse), end: heal, heals: true, option: link, notEmbedded: noOtherEnd},
		{name: "split", begin: split, end: heal, heals: true, option: link, notAlone: noReplica, notEmbedded: noOtherEnd},
		{name: "half-open", begin: partition(redistest.HalfOpen), end: heal, heals: true, option: link, notEmbedded: noOtherEnd},
		{name: "300ms", begin: slowDown, end: heal, option: link, notEmbedded: noOtherEnd},
		{name: "full-memory", begin: fillMemory, end: freeMemory, reads: true, takes: true, notEmbedded: "its store is on disk"},
		{name: "full-disk", begin: fillDisk, end: freeDisk, reads: true, option: small},
		{name: "client-kill", begin: killClients, end: nothing, notEmbedded: noServer},
		{name: "password-rotated", begin: rotatePassword, end: rotateBack, notEmbedded: noServer},
	}
}

func nothing(context.Context, *site) error { return nil }

// eachGateway does something to the gateways of embedded stores.
func (s *site) eachGateway(do func(g *gateway, folder string) error) error {
	var all []error
	for _, f := range s.fleets {
		folder := s.folders[f.mode]
		for _, g := range f.gateways {
			all = append(all, do(g, folder))
		}
	}
	return errors.Join(all...)
}

func killVictim(_ context.Context, s *site) error {
	if s.topology == nil {
		return s.eachGateway(func(g *gateway, _ string) error { g.kill(); return nil })
	}
	s.victim.Kill()
	return nil
}

func startVictim(ctx context.Context, s *site) error {
	if s.topology == nil {
		return s.eachGateway(func(g *gateway, _ string) error { g.runAgain(s.t); return nil })
	}
	return s.victim.Start(ctx)
}

func stopVictim(_ context.Context, s *site) error {
	if s.topology == nil {
		return s.eachGateway(func(g *gateway, _ string) error { return g.cmd.Process.Signal(syscall.SIGSTOP) })
	}
	return s.victim.Stop()
}

func contVictim(_ context.Context, s *site) error {
	if s.topology == nil {
		return s.eachGateway(func(g *gateway, _ string) error { return g.cmd.Process.Signal(syscall.SIGCONT) })
	}
	return s.victim.Cont()
}

func restartEmpty(ctx context.Context, s *site) error {
	if s.topology == nil {
		return s.eachGateway(func(g *gateway, folder string) error {
			g.kill()
			// A gateway that refuses to start without its file is right too.
			err := errors.Join(os.Rename(folder, folder+".last"), os.Mkdir(folder, 0o700))
			g.launchAnyhow(s.t)
			return err
		})
	}
	for _, n := range s.shard {
		n.Kill()
	}
	var err error
	s.last, err = s.copy()
	return errors.Join(err, s.restart(ctx, ""))
}

func restoreLast(ctx context.Context, s *site) error {
	if s.topology == nil {
		return s.eachGateway(func(g *gateway, folder string) error {
			g.kill()
			err := errors.Join(os.RemoveAll(folder), os.Rename(folder+".last", folder))
			g.runAgain(s.t)
			return err
		})
	}
	return s.restart(ctx, s.last)
}

func restartOlder(ctx context.Context, s *site) error { return s.restart(ctx, s.older) }

// acceptOlder is what an operator does about a store that is older, where the
// gateways ask for it.
func acceptOlder(_ context.Context, s *site) error {
	if !hasCommand(s.t, "store", "accept") {
		return nil
	}
	var all []error
	for _, f := range s.fleets {
		p := startProcess(s.t, gatehouse(s.t, "store", "accept", "--config", f.gateways[0].config))
		if code := p.wait(s.t, patience); code != 0 {
			all = append(all, fmt.Errorf("store accept: %d %s%s", code, p.stdout.String(), p.stderr.String()))
		}
	}
	return errors.Join(all...)
}

func planFailover(ctx context.Context, s *site) error {
	_, err := s.topology.Failover(ctx, redistest.Slot("account:{"+accountOf(0)+"}"))
	return err
}

func partition(mode redistest.Mode) func(ctx context.Context, s *site) error {
	return func(ctx context.Context, s *site) error { return s.topology.Partition(ctx, s.victim, mode) }
}

// split cuts the victim off from the other servers, while gateways reach it.
func split(ctx context.Context, s *site) error { return s.topology.Split(ctx, s.victim) }

func heal(_ context.Context, s *site) error {
	s.topology.Heal()
	return nil
}

func slowDown(_ context.Context, s *site) error {
	s.victim.Link.Delay(300*time.Millisecond, redistest.Clients, redistest.Subscriptions)
	return nil
}

func fillMemory(ctx context.Context, s *site) error { return s.victim.FillMemory(ctx) }
func freeMemory(ctx context.Context, s *site) error { return s.victim.FreeMemory(ctx) }

func fillDisk(_ context.Context, s *site) error {
	if s.topology == nil {
		return s.eachGateway(func(_ *gateway, folder string) error { return redistest.FillDisk(folder) })
	}
	return redistest.FillDisk(s.victim.Folder)
}

func freeDisk(_ context.Context, s *site) error {
	if s.topology == nil {
		return s.eachGateway(func(_ *gateway, folder string) error { return redistest.FreeDisk(folder) })
	}
	return redistest.FreeDisk(s.victim.Folder)
}

// killClients closes all connections again and again for two seconds.
func killClients(ctx context.Context, s *site) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	var all []error
	for range 10 {
		for _, n := range s.topology.Nodes {
			all = append(all, n.ClientKillAll(ctx))
		}
		<-tick.C
	}
	return errors.Join(all...)
}

// rotatePassword changes it before the gateways know it.
func rotatePassword(ctx context.Context, s *site) error {
	all := []error{s.topology.RotatePassword(ctx, storeUser, "second-password")}
	for _, n := range s.topology.Nodes {
		all = append(all, n.ClientKillAll(ctx))
	}
	return errors.Join(all...)
}

func rotateBack(ctx context.Context, s *site) error {
	return s.topology.RotatePassword(ctx, storeUser, storePassword)
}
