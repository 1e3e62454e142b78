package redistest

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"gatehouse/keystore/porttest"
)

// Server is a redis-server process with a port and a folder, both of which it
// keeps when it is started again.
type Server struct {
	// Client is connected past all Links, as the default user. It tries nothing
	// twice.
	Client *redis.Client
	// Folder has its configuration and its data.
	Folder string

	port int
	args []string // beside the configuration file

	mu      sync.Mutex
	process *os.Process
	gone    chan struct{} // closed when the process has ended
}

// starter starts what one Topology consists of.
type starter struct {
	tb      testing.TB
	ports   *porttest.Ports
	options Options
}

func (s *starter) port() int {
	s.tb.Helper()
	port, err := s.ports.Free(s.tb.Context())
	if err != nil {
		s.tb.Fatal(err)
	}
	return port
}

// server starts a server with these settings. When another process took its
// port meanwhile, the test fails.
func (s *starter) server(port int, tlsConfig *tls.Config, settings []string, args ...string) *Server {
	s.tb.Helper()
	folder := s.folder()
	if len(s.options.Users) > 0 && len(args) == 0 {
		users := filepath.Join(folder, "users.acl")
		lines := append([]string{"user default on nopass ~* &* +@all"}, s.options.Users...)
		if err := os.WriteFile(users, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			s.tb.Fatal(err)
		}
		settings = append(settings, "aclfile "+users)
	}
	settings = append(settings, "bind 127.0.0.1", "dir "+folder, "logfile "+filepath.Join(folder, "log"))
	conf := filepath.Join(folder, "redis.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(settings, "\n")+"\n"), 0o600); err != nil {
		s.tb.Fatal(err)
	}
	server := &Server{Folder: folder, port: port, args: append([]string{conf}, args...)}
	server.Client = plainClient(redis.Options{Addr: server.Addr(), TLSConfig: tlsConfig})
	s.tb.Cleanup(func() {
		server.Kill()
		_ = server.Client.Close() // its server has gone
		if s.tb.Failed() {
			s.tb.Logf("redis-server on %s said last:\n%s", server.Addr(), server.lastWords())
		}
	})
	if err := server.Start(s.tb.Context()); err != nil {
		s.tb.Fatal(err)
	}
	return server
}

// Addr is where the process itself listens, as HOST:PORT.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Start starts the process on its port, with its configuration and data, and
// waits until it answers, though it may still be loading. Where another process
// has the port, it is tried again for a while: some only look whether it is free.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return until(ctx, 100*time.Millisecond, func() error {
		process, gone, err := launch(exec.CommandContext(context.WithoutCancel(ctx), "redis-server", s.args...)) // #nosec G204 -- the tests' own
		if err != nil {
			return err
		}
		s.mu.Lock()
		s.process, s.gone = process, gone
		s.mu.Unlock()
		if err = s.waitAnswer(ctx, process.Pid); err != nil && !strings.Contains(err.Error(), "in use") {
			cancel() // it would be the same again
		}
		return err
	})
}

// waitAnswer waits until this process answers on its port, or ends.
func (s *Server) waitAnswer(ctx context.Context, pid int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var dialer net.Dialer
	return until(ctx, 5*time.Millisecond, func() error {
		if !s.Runs() {
			cancel()
			return fmt.Errorf("redis-server on %s ended at once:\n%s", s.Addr(), s.lastWords())
		}
		conn, err := dialer.DialContext(ctx, "tcp", s.Addr()) // without the client's words about failures
		if err != nil {
			return err
		}
		if err := conn.Close(); err != nil {
			return err
		}
		info, err := s.Client.Info(ctx, "server").Result()
		if err == nil && !strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", pid)) {
			err = fmt.Errorf("another process has the port of %s", s.Addr())
		}
		return err
	})
}

// launch starts a process that dies with this one, also when that is killed.
func launch(cmd *exec.Cmd) (*os.Process, chan struct{}, error) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started, gone := make(chan error, 1), make(chan struct{})
	go func() {
		runtime.LockOSThread() // the process dies with the thread that started it
		defer runtime.UnlockOSThread()
		defer close(gone)
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // it is killed
		}
	}()
	if err := <-started; err != nil {
		return nil, nil, err
	}
	return cmd.Process, gone, nil
}

// Runs reports whether there is a process, be it a stopped one.
func (s *Server) Runs() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.gone:
		return false
	default:
		return s.process != nil
	}
}

// Kill ends the process with SIGKILL, if there is one, and waits for its end.
func (s *Server) Kill() {
	s.mu.Lock()
	process, gone := s.process, s.gone
	s.mu.Unlock()
	if process == nil {
		return
	}
	_ = process.Kill() // it may have ended
	<-gone
}

// Stop stops the process (SIGSTOP): the kernel goes on accepting connections,
// and nothing is answered until Cont.
func (s *Server) Stop() error { return s.signal(syscall.SIGSTOP) }

// Cont lets a stopped process go on, with all that was sent to it meanwhile.
func (s *Server) Cont() error { return s.signal(syscall.SIGCONT) }

func (s *Server) signal(signal os.Signal) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.process.Signal(signal)
}

func (s *Server) lastWords() string {
	file, err := os.Open(filepath.Join(s.Folder, "log"))
	if err != nil {
		return err.Error()
	}
	defer func() { _ = file.Close() }() // it was read
	const shown = 1500
	if about, err := file.Stat(); err == nil && about.Size() > shown {
		_, _ = file.Seek(-shown, io.SeekEnd) // otherwise all of it is shown
	}
	said, err := io.ReadAll(file)
	if err != nil {
		return err.Error()
	}
	return string(said)
}
