package main

import (
	"context"
	"io/fs"
	"math"
	"path"
	"runtime/debug"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// collectorPercent lets the heap, which is small, grow further between two
	// collections than Go's default does: a tenth more throughput for some memory.
	collectorPercent = 400
	// usualMemory is how many bytes the process may have that way. What is more
	// is collected earlier.
	usualMemory = 256 << 20
	// memoryLook is how often it is looked whether that is still enough.
	memoryLook = time.Second
)

// tuneCollector sets when the heap is collected, and goes on doing so until stop
// is called. It leaves the operator's own GOGC and GOMEMLIMIT alone.
func tuneCollector(lookupEnv func(string) (string, bool), files fs.FS) (stop func()) {
	if _, given := lookupEnv("GOGC"); given {
		return func() {} // a limit would collect earlier than that says
	}
	debug.SetGCPercent(collectorPercent)
	if _, given := lookupEnv("GOMEMLIMIT"); given {
		return func() {}
	}
	most := mostMemory(files)
	debug.SetMemoryLimit(memoryLimit(memory{}, most))
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { keepMemoryLimit(ctx, most) })
	return func() {
		cancel()
		running.Wait()
	}
}

// keepMemoryLimit raises the limit while more is in use than fits below it.
func keepMemoryLimit(ctx context.Context, most int64) {
	tick := time.NewTicker(memoryLook)
	defer tick.Stop()
	samples := newMemorySamples()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			debug.SetMemoryLimit(memoryLimit(samples.read(), most))
		}
	}
}

// memory is what the process has in use, in bytes: the heap that was live at
// the last collection, and what is no heap, stacks above all.
type memory struct{ live, fixed int64 }

// memoryLimit is the soft limit of a process that has so much in use. At a limit
// that this reaches, the collector would run all the time: there is room for a
// third of the live heap beside it, but never more than most in all.
func memoryLimit(m memory, most int64) int64 {
	return min(max(usualMemory, m.live+m.live/3+m.fixed), most)
}

// memorySamples are the runtime's figures of which a memory is made: the live
// heap, and then everything that is fixed.
type memorySamples []metrics.Sample

func newMemorySamples() memorySamples {
	names := []string{
		"/gc/heap/live:bytes",
		"/memory/classes/heap/stacks:bytes", "/memory/classes/os-stacks:bytes", "/memory/classes/other:bytes",
		"/memory/classes/metadata/mcache/inuse:bytes", "/memory/classes/metadata/mspan/inuse:bytes", "/memory/classes/metadata/other:bytes",
		"/memory/classes/profiling/buckets:bytes",
	}
	samples := make(memorySamples, len(names))
	for i, name := range names {
		samples[i].Name = name
	}
	return samples
}

func (s memorySamples) read() memory {
	metrics.Read(s)
	m := memory{}
	for i, sample := range s {
		if sample.Value.Kind() != metrics.KindUint64 {
			continue // a runtime that does not know it
		}
		bytes := int64(min(sample.Value.Uint64(), math.MaxInt64/4)) // #nosec G115 -- bounded
		if i == 0 {
			m.live = bytes
		} else {
			m.fixed += bytes
		}
	}
	return m
}

// mostMemory is nine tenths of what the process's control group may have, or as
// good as no bound where there is none: the kernel ends what has more, and some
// memory is not the runtime's.
func mostMemory(files fs.FS) int64 {
	limit := groupMemory(files)
	return limit - limit/10
}

// groupMemory is the smallest memory limit of the control groups that the
// process is in, of version 1 or 2 (Control Group v2, "Memory Interface Files":
// memory.max); math.MaxInt64 where there is none. In a container their names may
// be those of the host, and only the uppermost be there.
func groupMemory(files fs.FS) int64 {
	groups, err := fs.ReadFile(files, "proc/self/cgroup")
	if err != nil {
		return math.MaxInt64
	}
	limit := int64(math.MaxInt64)
	for line := range strings.Lines(string(groups)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, name
		if len(parts) != 3 {
			continue
		}
		root, file := "sys/fs/cgroup", "memory.max"
		switch {
		case parts[1] == "" && parts[0] == "0":
		case hasController(parts[1], "memory"):
			root, file = "sys/fs/cgroup/memory", "memory.limit_in_bytes"
		default:
			continue
		}
		for name := path.Clean("/" + parts[2]); ; name = path.Dir(name) {
			limit = min(limit, memoryIn(files, path.Join(root, name, file)))
			if name == "/" {
				break
			}
		}
	}
	return limit
}

func hasController(controllers, wanted string) bool {
	for c := range strings.SplitSeq(controllers, ",") {
		if c == wanted {
			return true
		}
	}
	return false
}

// memoryIn reads a limit; "max", and a file that is not there, are none.
func memoryIn(files fs.FS, name string) int64 {
	text, err := fs.ReadFile(files, name)
	if err != nil {
		return math.MaxInt64
	}
	limit, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil || limit <= 0 {
		return math.MaxInt64
	}
	return limit
}
