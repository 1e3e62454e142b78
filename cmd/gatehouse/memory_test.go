package main

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"
)

// groups is a file system with these files, by their names and contents.
func groups(files map[string]string) fstest.MapFS {
	made := fstest.MapFS{}
	for name, content := range files {
		made[name] = &fstest.MapFile{Data: []byte(content)}
	}
	return made
}

func TestMemoryOfTheControlGroup(t *testing.T) {
	const none = math.MaxInt64
	for _, c := range []struct {
		name  string
		files map[string]string
		want  int64
	}{
		{"no control groups", nil, none},
		{"a container", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "536870912\n"}, 536870912},
		{"a container without a limit", map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, none},
		{"a service", map[string]string{
			"proc/self/cgroup": "0::/system.slice/gatehouse.service\n", "sys/fs/cgroup/system.slice/gatehouse.service/memory.max": "300000000\n",
			"sys/fs/cgroup/system.slice/memory.max": "max\n",
		}, 300000000},
		{"a slice that has less than the service", map[string]string{
			"proc/self/cgroup": "0::/system.slice/gatehouse.service\n", "sys/fs/cgroup/system.slice/gatehouse.service/memory.max": "300000000\n",
			"sys/fs/cgroup/system.slice/memory.max": "200000000\n",
		}, 200000000},
		{"names of the host", map[string]string{"proc/self/cgroup": "0::/kubepods/pod1/c2\n", "sys/fs/cgroup/memory.max": "128000000\n"}, 128000000},
		{"version 1", map[string]string{
			"proc/self/cgroup": "12:pids:/a\n5:cpu,cpuacct:/a\n4:memory:/docker/ab\n1:name=systemd:/a\n0::/b\n",
			"sys/fs/cgroup/memory/docker/ab/memory.limit_in_bytes": "100000000\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
		}, 100000000},
		{"version 1 in a container", map[string]string{"proc/self/cgroup": "4:memory:/docker/ab\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "100000000\n"}, 100000000},
		{"names that lead elsewhere", map[string]string{"proc/self/cgroup": "0::/../../x\n", "sys/fs/cgroup/memory.max": "1000\n", "x/memory.max": "1\n"}, 1000},
		{"what nobody understands", map[string]string{"proc/self/cgroup": "0::\n:::\n\nmemory\n", "sys/fs/cgroup/memory.max": "much\n"}, none},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := groupMemory(groups(c.files)); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}

func TestMemoryLimit(t *testing.T) {
	const mib = 1 << 20
	for _, c := range []struct {
		name string
		m    memory
		most int64
		want int64
	}{
		{"little in use", memory{10 * mib, 5 * mib}, math.MaxInt64, 256 * mib},
		{"what just fits", memory{180 * mib, 16 * mib}, math.MaxInt64, 256 * mib},
		{"more than that has room too", memory{600 * mib, 40 * mib}, math.MaxInt64, 840 * mib},
		{"a small container", memory{10 * mib, 5 * mib}, 115 * mib, 115 * mib},
		{"a large container is not filled", memory{10 * mib, 5 * mib}, 4096 * mib, 256 * mib},
		{"a container that is too small", memory{400 * mib, 40 * mib}, 460 * mib, 460 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := memoryLimit(c.m, c.most); got != c.want {
				t.Errorf("got %d MiB, want %d", got/mib, c.want/mib)
			}
		})
	}
}

// TestOperatorsCollectorSettingsWin: these are of the whole process, and so are
// put back.
func TestOperatorsCollectorSettingsWin(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) })
	container := groups(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "200000000\n"})
	for _, c := range []struct {
		name          string
		env           map[string]string
		percent, most int64
	}{
		{"both are ours", nil, collectorPercent, 180000000},
		{"GOGC is given", map[string]string{"GOGC": "50"}, 100, limit},
		{"GOMEMLIMIT is given", map[string]string{"GOMEMLIMIT": "1GiB"}, collectorPercent, limit},
		{"both are given", map[string]string{"GOGC": "50", "GOMEMLIMIT": "1GiB"}, 100, limit},
	} {
		t.Run(c.name, func(t *testing.T) {
			debug.SetGCPercent(100)
			debug.SetMemoryLimit(limit)
			stop := tuneCollector(func(name string) (string, bool) { value, given := c.env[name]; return value, given }, container)
			gotLimit, gotPercent := debug.SetMemoryLimit(-1), int64(debug.SetGCPercent(100))
			stop()
			if gotPercent != c.percent || gotLimit != c.most {
				t.Errorf("got GOGC=%d and a limit of %d, want %d and %d", gotPercent, gotLimit, c.percent, c.most)
			}
		})
	}
}

// TestRuntimeKnowsTheFigures that the limit is made of.
func TestRuntimeKnowsTheFigures(t *testing.T) {
	samples := newMemorySamples()
	if m := samples.read(); m.fixed == 0 {
		t.Errorf("got %+v", m)
	}
	for _, s := range samples {
		if s.Value.Kind() == 0 {
			t.Errorf("the runtime does not know %s", s.Name)
		}
	}
}
