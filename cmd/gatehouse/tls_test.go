package main_test

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
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestTLS: over HTTP/2 the decisions are the same, and the backend learns that
// the client came over https.
func TestTLS(t *testing.T) {
	t.Parallel()
	certFile, keyFile, roots := certificate(t)
	d := newPlainTable(t, settings{Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`, certFile, keyFile)})
	for _, protocol := range []string{"HTTP/2.0", "HTTP/1.1"} {
		t.Run(protocol, func(t *testing.T) {
			transport := &http.Transport{
				TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots}, ForceAttemptHTTP2: protocol == "HTTP/2.0",
			}
			defer transport.CloseIdleConnections()
			client := &http.Client{Transport: transport, Timeout: patience}
			ask := func(token, target string) (answer, error) {
				r, err := http.NewRequest(http.MethodGet, "https://"+d.addr+target, nil)
				if err != nil {
					return answer{}, err
				}
				r.Header.Set("api-token", token)
				r.Header.Set("X-Gatehouse-Account", "evil")
				return answerTo(client, r)
			}
			before := d.counts()[0]
			var all sync.WaitGroup
			for range 20 {
				all.Go(func() {
					if got, err := ask(d.key.Token, proxyListOfA); err != nil || got.status != http.StatusOK || got.proto != protocol {
						t.Errorf("got %s %d %s, %v", got.proto, got.status, got.body, err)
					}
				})
			}
			all.Wait()
			for _, seen := range d.backends[0].seen(before) {
				if seen.proto != "HTTP/1.1" || seen.header["x-forwarded-proto"][0] != "https" || seen.header["x-gatehouse-account"][0] != "acme" {
					t.Errorf("the backend saw\n%s", seen.raw)
				}
			}
			before = d.counts()[0]
			for target, want := range map[string]refusal{
				proxyListOfA + "/..":        {status: 400, code: "ambiguous_path"},
				whitelistOfA:                {status: 400, code: "ambiguous_query"},
				whitelistOfA + "?type=add":  {status: 403, code: "permission_denied", challenge: lacks("datacenter_shared:write")},
				proxyListOfA + "%2F":        {status: 400, code: "ambiguous_path"},
				"/v4/account/x/nothing":     {status: 404, code: "unknown_route"},
				whitelistOfA + "?type=get%": {status: 400, code: "ambiguous_query"},
			} {
				got, err := ask(d.key.Token, target)
				if err != nil {
					t.Fatal(err)
				}
				want.check(t, got)
			}
			got, err := ask("bad", proxyListOfA)
			if err != nil {
				t.Fatal(err)
			}
			refusal{status: 401, code: "invalid_token", challenge: badToken}.check(t, got)
			if d.counts()[0] != before {
				t.Error("the backend saw a refused request")
			}
		})
	}
}

// newPlainTable is newTable with keys that the operator makes, for a gateway
// that speaks TLS.
func newPlainTable(t *testing.T, s settings) *table {
	t.Helper()
	b := startBackend(t, answerOK)
	s.Datacenter, s.Residential = b.addr, b.addr
	d := &table{gateway: startGateway(t, s), backends: []*backend{b}}
	d.putAccount(t, "acme", acme())
	d.key = d.firstKey(t, "acme", may("datacenter_shared:read"))
	return d
}

// certificate makes one for 127.0.0.1.
func certificate(t *testing.T) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	folder := t.TempDir()
	certFile, keyFile = filepath.Join(folder, "tls.crt"), filepath.Join(folder, "tls.key")
	for file, content := range map[string][]byte{certFile: certPEM, keyFile: keyPEM} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	roots = x509.NewCertPool()
	roots.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, roots
}
