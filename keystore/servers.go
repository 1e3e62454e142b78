package keystore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// fullMemory is the share of maxmemory from which on there is a warning.
	fullMemory = 0.9
	// clockTolerance is how far the clocks of a node and of the store may differ
	// without a warning. A node notices an expiry early or late by as much. Beyond
	// farClock the warning is an error, and no keys are made that would have
	// expired by the store's clock.
	clockTolerance = 2 * time.Second
	farClock       = 30 * time.Second
)

// Warning is something about the store's servers that an operator should look at.
type Warning string

// The warnings.
const (
	// WarnEviction: maxmemory-policy is not noeviction, or keys were evicted.
	WarnEviction Warning = "eviction"
	// WarnAOFOff: no append-only file; what was acknowledged since the last
	// snapshot is lost with the process.
	WarnAOFOff Warning = "aof_off"
	// WarnDisk: Redis could not write its append-only file or its last snapshot.
	WarnDisk Warning = "disk"
	// WarnReplicas: fewer replicas are connected than Options.Durability asks for.
	WarnReplicas Warning = "replicas"
	// WarnMemory: more than 90 % of maxmemory is in use.
	WarnMemory Warning = "memory"
	// WarnClock: the clocks of this node and of the store differ by more than 2 s.
	WarnClock Warning = "clock"
	// WarnFarClock: they differ by more than 30 s.
	WarnFarClock Warning = "far_clock"
	// WarnReadOnly: lookups are answered, and the last change was not taken.
	WarnReadOnly Warning = "read_only"
	// WarnUnseen: the Redis user may not use INFO or TIME, so that most of this is
	// not known.
	WarnUnseen Warning = "unseen"
)

// Warnings returns every warning there is.
func Warnings() []Warning {
	return []Warning{
		WarnEviction, WarnAOFOff, WarnDisk, WarnReplicas, WarnMemory, WarnClock, WarnFarClock, WarnReadOnly, WarnUnseen,
	}
}

// Severe reports whether customers suffer from it, or will before long.
func (w Warning) Severe() bool {
	switch w {
	case WarnEviction, WarnDisk, WarnFarClock, WarnReadOnly:
		return true
	case WarnAOFOff, WarnReplicas, WarnMemory, WarnClock, WarnUnseen:
	}
	return false
}

// Notice is a Warning with what was seen, in words.
type Notice struct {
	Warning Warning
	Detail  string
}

// Servers is what the store's servers say of themselves. It is zero for an
// embedded store, and where they may not be asked.
type Servers struct {
	// ClockOffset is how far the clock of the store is ahead of this node's;
	// negative: behind. Of several servers, that of the one which differs most.
	ClockOffset time.Duration
	// MemoryUsed is the share of maxmemory in use on the fullest server; 0 where
	// none has a maxmemory.
	MemoryUsed float64
	// Replicas is how many replicas are connected to the server with the fewest.
	Replicas int
	// Evicted is how many keys the servers have evicted since they started.
	Evicted uint64
}

// serverInfo is what one master said of itself.
type serverInfo struct {
	name      string // its address; "" where there is only one
	refused   error  // it may not be asked
	policy    string
	maxMemory uint64
	used      uint64
	evicted   uint64
	aofOff    bool
	disk      string // what it could not do; "" for nothing
	replicas  int
	// offset is how far its clock is ahead, known to within uncertain.
	offset, uncertain time.Duration
}

func (s *serverInfo) mayEvict() bool {
	return s.maxMemory > 0 && s.policy != "" && s.policy != "noeviction"
}

// askServers asks every master, and returns what those said that answered. A
// Cluster's are named.
func askServers(ctx context.Context, client redis.UniversalClient, clock func() time.Time) []*serverInfo {
	cluster, is := client.(*redis.ClusterClient)
	if !is {
		if s := askServer(ctx, client, clock); s != nil {
			return []*serverInfo{s}
		}
		return nil
	}
	var mu sync.Mutex
	var all []*serverInfo
	_ = cluster.ForEachMaster(ctx, func(ctx context.Context, c *redis.Client) error { // those that answer count
		if s := askServer(ctx, c, clock); s != nil {
			s.name = c.Options().Addr
			mu.Lock()
			defer mu.Unlock()
			all = append(all, s)
		}
		return nil
	})
	return all
}

// askServer returns nil where the server did not answer.
func askServer(ctx context.Context, c redis.UniversalClient, clock func() time.Time) *serverInfo {
	info, err := c.Info(ctx).Result()
	if err != nil {
		return unasked(err)
	}
	s := parseServer(info)
	begun := clock()
	at, err := c.Time(ctx).Result()
	if err != nil {
		return unasked(err)
	}
	s.uncertain = clock().Sub(begun) / 2
	s.offset = at.Sub(begun.Add(s.uncertain))
	return s
}

// unasked: a server that answers something else does so for as long as its rules
// are what they are. While it loads its data it answers nobody.
func unasked(err error) *serverInfo {
	var reply redis.Error
	if !errors.As(err, &reply) || redis.IsLoadingError(err) {
		return nil
	}
	return &serverInfo{refused: err}
}

// parseServer reads an answer of INFO. What is not there, or not a number, is as
// if it was zero.
func parseServer(info string) *serverInfo {
	fields := map[string]string{}
	for lines := bufio.NewScanner(strings.NewReader(info)); lines.Scan(); {
		if name, value, ok := strings.Cut(lines.Text(), ":"); ok && !strings.HasPrefix(name, "#") {
			fields[name] = strings.TrimSuffix(value, "\r")
		}
	}
	number := func(name string) uint64 {
		n, _ := strconv.ParseUint(fields[name], 10, 64)
		return n
	}
	s := &serverInfo{
		policy: fields["maxmemory_policy"], maxMemory: number("maxmemory"), used: number("used_memory"),
		evicted: number("evicted_keys"), aofOff: fields["aof_enabled"] == "0", replicas: online(fields),
	}
	for _, status := range []struct{ field, what string }{
		{"aof_last_write_status", "write its append-only file"},
		{"aof_last_bgrewrite_status", "rewrite its append-only file"},
		{"rdb_last_bgsave_status", "write its last snapshot"},
	} {
		if fields[status.field] == "err" && s.disk == "" {
			s.disk = status.what
		}
	}
	return s
}

// online counts the replicas that are connected and have caught up.
func online(fields map[string]string) int {
	n := 0
	for name, value := range fields {
		if number, ok := strings.CutPrefix(name, "slave"); ok && strings.Contains(value, "state=online") {
			if _, err := strconv.ParseUint(number, 10, 16); err == nil {
				n++
			}
		}
	}
	return n
}

// judge sums up what the servers said, and says what is to be looked at.
func judge(asked []*serverInfo, replicas int) (Servers, map[Warning]string) {
	all := Servers{Replicas: -1}
	found := make(map[Warning]string)
	for _, s := range asked {
		say := func(w Warning, format string, values ...any) {
			text := fmt.Sprintf(format, values...)
			if s.name != "" {
				text = s.name + ": " + text
			}
			if before, is := found[w]; is {
				text = before + "; " + text
			}
			found[w] = text
		}
		if s.refused != nil {
			say(WarnUnseen, "INFO and TIME cannot be used: %v", s.refused)
			continue
		}
		all.add(s)
		s.judge(replicas, say)
	}
	all.Replicas = max(0, all.Replicas)
	return all, found
}

func (all *Servers) add(s *serverInfo) {
	if s.offset.Abs() > all.ClockOffset.Abs() {
		all.ClockOffset = s.offset
	}
	if s.maxMemory > 0 {
		all.MemoryUsed = max(all.MemoryUsed, float64(s.used)/float64(s.maxMemory))
	}
	if all.Replicas < 0 || s.replicas < all.Replicas {
		all.Replicas = s.replicas
	}
	all.Evicted += s.evicted
}

func (s *serverInfo) judge(replicas int, say func(w Warning, format string, values ...any)) {
	switch {
	case s.policy != "" && s.policy != "noeviction":
		say(WarnEviction, "maxmemory-policy is %s, and must be noeviction; %d keys were evicted since the server started", s.policy, s.evicted)
	case s.evicted > 0:
		say(WarnEviction, "%d keys were evicted since the server started: compare the store with a backup", s.evicted)
	}
	if s.aofOff {
		say(WarnAOFOff, "appendonly is no: changes that were acknowledged since the last snapshot are lost with the process")
	}
	if s.disk != "" {
		say(WarnDisk, "it could not %s", s.disk)
	}
	if s.replicas < replicas {
		say(WarnReplicas, "%d of the %d replicas are connected that store.durability asks for", s.replicas, replicas)
	}
	if used := float64(s.used); s.maxMemory > 0 && used > fullMemory*float64(s.maxMemory) {
		say(WarnMemory, "%.0f %% of maxmemory is in use; at 100 %% the store accepts no changes", 100*used/float64(s.maxMemory))
	}
	if sure := s.offset.Abs() - s.uncertain; sure > clockTolerance {
		w := WarnClock
		if sure > farClock {
			w = WarnFarClock
		}
		say(w, "the store's clock differs by %s from this node's", s.offset.Round(time.Millisecond))
	}
}
