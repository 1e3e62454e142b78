package main

import (
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/coreos/go-systemd/v22/activation"
)

// The names of the sockets that systemd may open for a gateway
// (FileDescriptorName= of systemd.socket(5)).
const (
	publicSocket  = "public" // in the place of listen
	privateSocket = "admin"  // in the place of admin_listen
)

// sockets are listeners that the process was started with, by name. They stay
// open while it is replaced by another one, so that no connection is refused.
type sockets map[string]net.Listener

// inheritSockets takes over what systemd opened (sd_listen_fds(3)): none, where
// it did not start the process.
func inheritSockets() (sockets, error) {
	const unset = true
	taken := sockets{}
	var faults []error
	for _, file := range activation.Files(unset) {
		faults = append(faults, taken.add(file))
	}
	return taken, errors.Join(faults...)
}

// add refuses a socket whose purpose is not certain.
func (s sockets) add(file *os.File) error {
	name := file.Name()
	defer func() { _ = file.Close() }() // the listener has its own descriptor
	switch {
	case name != publicSocket && name != privateSocket:
		return fmt.Errorf("socket %q from systemd: FileDescriptorName must be %s or %s", name, publicSocket, privateSocket)
	case s[name] != nil:
		return fmt.Errorf("socket %q from systemd: there are two of this name; each takes one ListenStream", name)
	}
	listener, err := net.FileListener(file)
	if err != nil {
		return fmt.Errorf("socket %q from systemd: %w", name, err)
	}
	if _, ok := listener.(*net.TCPListener); !ok {
		return errors.Join(fmt.Errorf("socket %q from systemd: must be a TCP socket", name), listener.Close())
	}
	s[name] = listener
	return nil
}
