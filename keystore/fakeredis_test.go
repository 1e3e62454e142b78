package keystore_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// fakeRedis is a server that speaks RESP and answers what a test tells it to.
type fakeRedis struct {
	addr string
	// answer returns the reply to a command, "" for none. It may take its time:
	// commands of one connection wait for each other, others do not.
	answer func(args []string) string

	mu    sync.Mutex
	conns []net.Conn
}

// newFakeRedis listens until the test ends. Answers to what a client asks of a
// new connection are its own.
func newFakeRedis(t *testing.T, answer func(args []string) string) *fakeRedis {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &fakeRedis{addr: l.Addr().String(), answer: answer}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.conns = append(f.conns, conn)
			f.mu.Unlock()
			all.Go(func() { f.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		f.hangUp()
		all.Wait()
	})
	return f
}

// hangUp closes every connection there is.
func (f *fakeRedis) hangUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range f.conns {
		_ = conn.Close()
	}
	f.conns = nil
}

func (f *fakeRedis) serve(conn net.Conn) {
	defer func() { _ = conn.Close() }()
	in := bufio.NewReader(conn)
	for {
		args, err := readCommand(in)
		if err != nil {
			return
		}
		reply := ""
		switch strings.ToLower(args[0]) {
		case "hello": // as a server answers that is older than the command
			reply = "-ERR unknown command\r\n"
		case "client", "select":
			reply = "+OK\r\n"
		default:
			reply = f.answer(args)
		}
		if _, err := io.WriteString(conn, reply); err != nil {
			return
		}
	}
}

func readCommand(in *bufio.Reader) ([]string, error) {
	n, err := readLength(in, '*')
	if err != nil {
		return nil, err
	}
	args := make([]string, n)
	for i := range args {
		size, err := readLength(in, '$')
		if err != nil {
			return nil, err
		}
		text := make([]byte, size+2)
		if _, err := io.ReadFull(in, text); err != nil {
			return nil, err
		}
		args[i] = string(text[:size])
	}
	return args, nil
}

func readLength(in *bufio.Reader, kind byte) (int, error) {
	line, err := in.ReadString('\n')
	if err != nil {
		return 0, err
	}
	if line[0] != kind {
		return 0, fmt.Errorf("got %q, want %c", line, kind)
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}

// respArray and respBulk spell replies.
func respArray(elements ...string) string {
	return fmt.Sprintf("*%d\r\n%s", len(elements), strings.Join(elements, ""))
}

func respBulk(s string) string { return fmt.Sprintf("$%d\r\n%s\r\n", len(s), s) }

// valuesOf answers an MGET as a server does that has a value for every key.
func valuesOf(args []string) string {
	var values []string
	for _, key := range args[1:] {
		values = append(values, respBulk("value of "+key))
	}
	return respArray(values...)
}
