package config_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/proxy"
	"gatehouse/proxy/keyapi"
)

// FuzzParse: any text gives a configuration that works or problems with all
// their parts, and what the environment holds is in none of them.
func FuzzParse(f *testing.F) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if file.Name == "config.yaml" {
				f.Add(file.Data)
			}
		}
	}
	f.Add([]byte(minimal + "admin_token: ${S}\nlog: {level: '${S}'}\n"))
	lookupEnv := func(name string) (string, bool) { return marker, len(name) < 4 }
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 8<<10 || strings.Contains(string(data), "hunter2") {
			t.Skip("too slow, or shows the secret itself")
		}
		c, err := config.Parse("f.yaml", data, lookupEnv)
		if err == nil {
			checkUsable(t, c)
			return
		}
		var problems config.Problems
		if c != nil || !errors.As(err, &problems) || len(problems) == 0 {
			t.Fatalf("got %v and %v; want a configuration or problems", c, err)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("the error shows the secret: %v", err)
		}
		for _, p := range problems {
			if p.Line < 1 || p.Column < 1 || p.File != "f.yaml" || p.Fault == "" || p.Mend == "" || strings.ContainsAny(p.String(), "\n\r") {
				t.Errorf("the problem lacks a part or is more than a line: %#v", p)
			}
		}
	})
}

// checkUsable has done what cmd does with a valid configuration.
func checkUsable(t *testing.T, c *config.Config) {
	t.Helper()
	catalogue, err := c.Catalogue()
	if err != nil {
		t.Fatalf("the catalogue of a valid configuration: %v", err)
	}
	specs := c.RouteSpecs(func(string) proxy.Backend { return proxy.BackendFunc(nil) })
	if _, err := proxy.NewRoutes(keyapi.Reserved(), specs); err != nil || len(specs) == 0 {
		t.Errorf("%d routes of a valid configuration: %v", len(specs), err)
	}
	for _, spec := range specs {
		if spec.Permission != "" && !catalogue.Has(spec.Permission) {
			t.Errorf("the route %s needs %s, which does not exist", spec.Match, spec.Permission)
		}
	}
	if (c.Store.Redis == nil) == (c.Store.Embedded == nil) {
		t.Errorf("a valid configuration has not exactly one store: %v", c.Store)
	}
}
