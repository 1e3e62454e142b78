package main_test

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// projection is a folder of files as kubelet lays a ConfigMap or Secret out: the
// names are links into ..data, which is a link to a folder that is replaced.
type projection struct {
	folder string
	at     int
}

// project puts the files in place, all at one moment.
func (p *projection) project(t *testing.T, files map[string]string) {
	t.Helper()
	p.at++
	version := fmt.Sprintf("..2026_11_25_10_00_%02d.%d", p.at, 1000+p.at)
	fault := os.Mkdir(filepath.Join(p.folder, version), 0o755)
	for name, content := range files {
		fault = errors.Join(fault, os.WriteFile(filepath.Join(p.folder, version, name), []byte(content), 0o644))
	}
	before, _ := os.Readlink(filepath.Join(p.folder, "..data")) // none, the first time
	link := filepath.Join(p.folder, "..data_tmp")
	fault = errors.Join(fault, os.Symlink(version, link), os.Rename(link, filepath.Join(p.folder, "..data")))
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(p.folder, name)); !errors.Is(err, os.ErrExist) {
			fault = errors.Join(fault, err)
		}
	}
	if before != "" {
		fault = errors.Join(fault, os.RemoveAll(filepath.Join(p.folder, before)))
	}
	if fault != nil {
		t.Fatal(fault)
	}
}

// TestConfigMapIsReloaded: kubelet replaces what the file is a link to, and
// neither the file nor its link.
func TestConfigMapIsReloaded(t *testing.T) {
	t.Parallel()
	d := newTable(t, settings{Store: embeddedStore(t), Sockets: holdSockets(t, "public", "admin")})
	written := d.config
	read := func(change func(*settings)) map[string]string {
		d.config = written
		d.configure(t, change)
		content, err := os.ReadFile(written)
		if err != nil {
			t.Fatal(err)
		}
		return map[string]string{"config.yaml": string(content)}
	}
	mounted := &projection{folder: t.TempDir()}
	mounted.project(t, read(func(*settings) {}))
	d.signal(t, syscall.SIGTERM)
	d.wait(t, patience)
	d.config = filepath.Join(mounted.folder, "config.yaml")
	if !d.launch(t) {
		t.Fatal("a port is in use")
	}
	for _, row := range []struct {
		change func(*settings)
		want   int
	}{{withParrots, http.StatusForbidden}, {func(*settings) {}, http.StatusNotFound}} {
		mounted.project(t, read(row.change))
		eventually(t, patience, "it is loaded", func() error {
			got, err := d.exchange(get(d.key, "/parrots/7"))
			return unless(err == nil && got.status == row.want, fmt.Sprint(got.status, err))
		})
	}
}

// TestRenewedSecretIsReloaded: the certificate and its key change at one moment.
func TestRenewedSecretIsReloaded(t *testing.T) {
	t.Parallel()
	mounted := &projection{folder: t.TempDir()}
	files, _ := secretOf(t)
	mounted.project(t, files)
	d := newPlainTable(t, settings{Store: embeddedStore(t), TLS: fmt.Sprintf(`{cert_file: %q, key_file: %q}`,
		filepath.Join(mounted.folder, "tls.crt"), filepath.Join(mounted.folder, "tls.key"))})
	files, roots := secretOf(t)
	mounted.project(t, files)
	eventually(t, patience, "the new certificate is shown", func() error { return trusts(d.addr, roots) })
	if said := d.metric(t, "gatehouse_config_last_reload_successful"); said != 1 {
		t.Error("a reload failed")
	}
}

// secretOf is a Secret of the type kubernetes.io/tls.
func secretOf(t *testing.T) (files map[string]string, roots *x509.CertPool) {
	t.Helper()
	certFile, keyFile, roots := certificate(t)
	files = map[string]string{}
	for name, file := range map[string]string{"tls.crt": certFile, "tls.key": keyFile} {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(content)
	}
	return files, roots
}
