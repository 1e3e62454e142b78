package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ticksPerSecond is USER_HZ, in which Linux counts CPU time for /proc.
const ticksPerSecond = 100

// load sends the contender's request over that many connections, one at a time
// on each, until the time is up. It reads answers with as little work as
// possible: client and contender share the machine.
func load(ctx context.Context, c *contender, connections int, d time.Duration) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	type share struct {
		latencies []time.Duration
		err       error
	}
	shares := make(chan share, connections)
	before, err := cpuTime(c.pid)
	if err != nil {
		return result{}, err
	}
	begun := time.Now()
	for range connections {
		go func() {
			latencies, err := client(ctx, c)
			shares <- share{latencies, err}
		}()
	}
	var all []time.Duration
	for range connections {
		s := <-shares
		all = append(all, s.latencies...)
		err = errors.Join(err, s.err)
	}
	elapsed := time.Since(begun)
	after, cpuErr := cpuTime(c.pid)
	if err = errors.Join(err, cpuErr); err != nil {
		return result{}, err
	}
	if len(all) == 0 {
		return result{}, errors.New("no request was answered")
	}
	slices.Sort(all)
	return result{
		perSecond: float64(len(all)) / elapsed.Seconds(),
		cpu:       (after - before) / time.Duration(len(all)),
		p50:       all[len(all)/2], p99: all[len(all)*99/100],
	}, nil
}

// client sends one request after the other until ctx ends.
func client(ctx context.Context, c *contender) ([]time.Duration, error) {
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, "tcp", c.address)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // nothing is left to be lost
	answers := bufio.NewReaderSize(conn, 8<<10)
	var latencies []time.Duration
	for ctx.Err() == nil {
		sent := time.Now()
		if _, err := conn.Write(c.request); err != nil {
			return nil, err
		}
		if err := readAnswer(answers); err != nil {
			return nil, err
		}
		latencies = append(latencies, time.Since(sent))
	}
	return latencies, nil
}

// readAnswer reads one answer with a Content-Length, which must be a 200.
func readAnswer(r *bufio.Reader) error {
	status, err := r.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(status, []byte("HTTP/1.1 200 ")) {
		return fmt.Errorf("answered %q", bytes.TrimSpace(status))
	}
	length := 0
	for {
		line, err := r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			_, err = io.CopyN(io.Discard, r, int64(length))
			return err
		}
		if value, ok := bytes.CutPrefix(line, []byte("Content-Length: ")); ok {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		}
	}
}

// cpuTime is the CPU time a process has taken so far (proc(5)).
func cpuTime(pid int) (time.Duration, error) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, fmt.Errorf("cpu time: %w", err)
	}
	_, rest, _ := strings.Cut(string(raw), ") ") // behind the name, which may hold anything
	fields := strings.Fields(rest)
	const user, system = 11, 12
	if len(fields) <= system {
		return 0, errors.New("cpu time: the kernel's answer is too short")
	}
	ticks := 0
	for _, i := range []int{user, system} {
		n, err := strconv.Atoi(fields[i])
		if err != nil {
			return 0, fmt.Errorf("cpu time: %w", err)
		}
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / ticksPerSecond), nil
}
