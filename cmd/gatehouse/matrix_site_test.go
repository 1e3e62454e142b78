package main_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse/keystore/redistest"
)

// embeddedKind is a topology of its own in the matrix: a gateway with its store
// in a file.
const embeddedKind redistest.Kind = "embedded"

// The user by which gateways come in, and the password that it begins with.
const (
	storeUser     = "gatehouse"
	storePassword = "first-password"
)

// site is where the fleets of one row of the matrix have their stores: one Redis
// for all, in which each has its own prefix, or a file of each.
type site struct {
	t        *testing.T
	kind     redistest.Kind
	topology *redistest.Topology // nil for embedded
	folders  map[string]string   // of embedded stores, by mode
	fleets   []*fleet
	replicas bool // changes are acknowledged when a replica has them

	victim *redistest.Node   // the master that the fault is of
	shard  []*redistest.Node // it and its replicas
	older  string            // a copy of its data from before some changes
	last   string            // a copy of its data when the fault began
}

// startSite starts the store of one row.
func startSite(t *testing.T, kind redistest.Kind, o redistest.Options) *site {
	t.Helper()
	s := &site{t: t, kind: kind, folders: map[string]string{}}
	if kind == embeddedKind {
		return s
	}
	o.Users = []string{"user " + storeUser + " on >" + storePassword + " " + userRules(t)}
	s.topology = redistest.Start(t, kind, o)
	s.replicas = kind != redistest.Standalone && knowsDurability(t)
	return s
}

// userRules are those of the Redis user that the guide has.
func userRules(t *testing.T) string {
	t.Helper()
	guide, err := os.ReadFile("../../docs/guides/redis-cluster-sentinel.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(guide), "\nuser gatehouse on >gatehouse-secret ")
	rules, _, ended := strings.Cut(rest, "\n")
	if !found || !ended {
		t.Fatal("the guide has no user gatehouse")
	}
	// The fleets have stores with prefixes of their own.
	return strings.NewReplacer("~gatehouse:*", "~*", "&gatehouse:*", "&*").Replace(rules)
}

// knowsDurability reports whether this binary has store.durability.
func knowsDurability(t *testing.T) bool {
	t.Helper()
	file := configFile(t, settings{Store: `redis: {addrs: ["127.0.0.1:1"]}` + "\n  " + replicated})
	p := startProcess(t, gatehouse(t, "check", "--config", file))
	return p.wait(t, patience) == 0
}

// replicated has changes acknowledged only when a replica has them too.
const replicated = "durability: {replicas: 1, timeout: 1s}"

// store is the YAML of the store of a mode.
func (s *site) store(m mode, small bool) string {
	if s.kind == embeddedKind {
		folder := s.folders[m.name]
		if folder == "" {
			folder = s.t.TempDir()
			if small {
				folder = redistest.SmallDisk(s.t, smallDisk)
			}
			s.folders[m.name] = folder
		}
		return fmt.Sprintf("embedded: {file: %q}\n  %s", filepath.Join(folder, "store"), m.yaml)
	}
	return redisYAML(s.topology.Kind, s.topology.Addrs(), m, s.replicas)
}

func redisYAML(kind redistest.Kind, addrs []string, m mode, replicas bool) string {
	master := ""
	if kind == redistest.Sentinel {
		master = ", master_name: " + redistest.MasterName
	}
	yaml := fmt.Sprintf("redis: {addrs: [\"%s\"]%s, username: %s, password: %s, prefix: %q}\n  %s",
		strings.Join(addrs, `", "`), master, storeUser, storePassword, "of-"+m.name+":", m.yaml)
	if replicas {
		yaml += "\n  " + replicated
	}
	return yaml
}

// choose takes the master that the fault is of: one that keeps an account.
func (s *site) choose(ctx context.Context) error {
	if s.topology == nil {
		return nil
	}
	var err error
	s.shard, err = s.topology.Shard(ctx, redistest.Slot("account:{"+accountOf(0)+"}"))
	if err == nil {
		s.victim = s.shard[0]
	}
	return err
}

// copy copies the data that the victim has now.
func (s *site) copy() (folder string, err error) {
	folder = s.t.TempDir()
	return folder, s.victim.Copy(folder)
}

// restart kills the victim and its replicas, and starts them with the data of a
// copy; "" for none.
func (s *site) restart(ctx context.Context, folder string) error {
	for _, n := range s.shard {
		n.Kill()
	}
	var all []error
	for i, n := range s.shard {
		data := folder
		if i > 0 {
			data = "" // a replica takes its master's
		}
		all = append(all, n.PutBack(data), n.Start(ctx))
	}
	return errors.Join(all...)
}
