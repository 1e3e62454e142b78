package redistest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// durable are the settings by which a server keeps what it acknowledged, as far
// as the options ask for that.
func (o Options) durable() []string {
	settings := []string{
		"maxmemory-policy noeviction", "maxclients 4000", "auto-aof-rewrite-percentage 0", "aof-load-truncated yes",
		"repl-diskless-sync yes", "repl-diskless-sync-delay 0", "repl-ping-replica-period 1", "repl-timeout 5",
	}
	switch o.Fsync {
	case Always, "":
		settings = append(settings, `save ""`, "appendonly yes", "appendfsync always")
	case EverySecond:
		settings = append(settings, `save ""`, "appendonly yes", "appendfsync everysec")
	case Off:
		settings = append(settings, "save 3600 1", "appendonly no")
	}
	return append(settings, o.Args...)
}

func portSetting(name string, port int) string { return name + " " + strconv.Itoa(port) }

func (s *starter) standalone() *Topology {
	s.tb.Helper()
	port := s.port()
	node, topology := &Node{}, &Topology{Kind: Standalone}
	if s.options.Links {
		node.Link = s.link(port, sniffRedis)
	}
	if s.options.TLS {
		config, files := s.certificate()
		topology.CAFile = files[0]
		node.Server = s.server(port, config, append(s.options.durable(), "port 0", portSetting("tls-port", port),
			"tls-cert-file "+files[0], "tls-key-file "+files[1], "tls-ca-cert-file "+files[0], "tls-auth-clients no"))
	} else {
		node.Server = s.server(port, nil, append(s.options.durable(), portSetting("port", port)))
	}
	topology.Nodes = []*Node{node}
	return topology
}

func (s *starter) link(port int, sniff sniffer) *Link {
	s.tb.Helper()
	l, err := newLink(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), sniff)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.tb.Cleanup(l.Close)
	return l
}

// certificate makes one of 127.0.0.1 that signs itself, as PEM files of it and
// of its key.
func (s *starter) certificate() (trusting *tls.Config, files [2]string) {
	s.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		s.tb.Fatal(err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		s.tb.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		s.tb.Fatal(err)
	}
	folder := s.tb.TempDir()
	for i, block := range []*pem.Block{{Type: "CERTIFICATE", Bytes: der}, {Type: "PRIVATE KEY", Bytes: private}} {
		files[i] = filepath.Join(folder, fmt.Sprintf("%d.pem", i))
		if err := os.WriteFile(files[i], pem.EncodeToMemory(block), 0o600); err != nil {
			s.tb.Fatal(err)
		}
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, files
}
