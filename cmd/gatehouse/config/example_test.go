package config_test

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"

	"gatehouse/cmd/gatehouse/config"
)

const exampleFile = "../../../config.example.yaml"

func ExampleLoad() {
	c, err := config.Load(exampleFile, func(string) (string, bool) { return "", false })
	if err != nil {
		say(err)
		return
	}
	say(c.Listen, c.Store.Redis.Addrs, c.Routes[0].Permission)
	// Output: :8080 [127.0.0.1:6379] datacenter_shared:read
}

func ExampleProblems() {
	text := "listen: 8080\nstore: {redis: {}}\nroutes: []\n"
	_, err := config.Parse("config.yaml", []byte(text), os.LookupEnv)
	var problems config.Problems
	if errors.As(err, &problems) {
		for _, p := range problems {
			say(p)
		}
	}
	// Output:
	// config.yaml:1:9: listen: is a number where text is needed; put it in quotes
	// config.yaml:3:1: routes: has no route; write at least one: without it every request is refused
}

func say(what ...any) { _, _ = fmt.Fprintln(os.Stdout, what...) }

func exampleText(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(exampleFile)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestExampleShowsTheDefaults(t *testing.T) {
	example, defaults := mustParse(t, exampleText(t), noEnv), mustParse(t, minimal, noEnv)
	if len(example.Products) != 6 || len(example.Upstreams) != 4 || len(example.Routes) != 10 {
		t.Errorf("the example has %d products, %d upstreams and %d routes", len(example.Products), len(example.Upstreams), len(example.Routes))
	}
	for name, upstream := range example.Upstreams {
		upstream.Targets = defaults.Upstreams["serp"].Targets
		if diff := cmp.Diff(defaults.Upstreams["serp"], upstream); diff != "" {
			t.Errorf("the upstream %s differs from the defaults (-default +example):\n%s", name, diff)
		}
	}
	example.Products, example.Upstreams, example.Routes = defaults.Products, defaults.Upstreams, defaults.Routes
	if diff := cmp.Diff(defaults, example, compareConfig()); diff != "" {
		t.Errorf("the example differs from the defaults (-default +example):\n%s", diff)
	}
}

func TestExampleHasEverySetting(t *testing.T) {
	fields := settingsOf(reflect.TypeFor[config.Config]())
	var names []string
	for _, field := range fields {
		names = append(names, field[len(field)-1])
	}
	var root any
	if err := yaml.Unmarshal([]byte(config.Uncommented(exampleText(t), names...)), &root); err != nil {
		t.Fatalf("the example, with the settings that are commented out: %v", err)
	}
	if len(fields) < 50 {
		t.Errorf("found %d settings; the test does not see all", len(fields))
	}
	for _, field := range fields {
		if !has(root, field) {
			t.Errorf("the example does not have %s", strings.Join(field, "."))
		}
	}
}

// settingsOf returns the path of each setting below a type; "*" stands for
// any item of a list or mapping.
func settingsOf(t reflect.Type) [][]string {
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	var found [][]string
	switch {
	case !strings.HasSuffix(t.PkgPath(), "/config") && t.Kind() == reflect.Struct:
		return nil // a foreign type is a scalar
	case t.Kind() == reflect.Slice || t.Kind() == reflect.Map:
		for _, below := range settingsOf(t.Elem()) {
			found = append(found, append([]string{"*"}, below...))
		}
	case t.Kind() == reflect.Struct:
		for i := range t.NumField() {
			name := t.Field(i).Tag.Get("yaml")
			if name == "-" {
				continue
			}
			found = append(found, []string{name})
			for _, below := range settingsOf(t.Field(i).Type) {
				found = append(found, append([]string{name}, below...))
			}
		}
	}
	return found
}

func has(node any, path []string) bool {
	if len(path) == 0 {
		return true
	}
	switch n := node.(type) {
	case map[string]any:
		if path[0] != "*" {
			value, ok := n[path[0]]
			return ok && has(value, path[1:])
		}
		for _, value := range n {
			if has(value, path[1:]) {
				return true
			}
		}
	case []any:
		return path[0] == "*" && slices.ContainsFunc(n, func(value any) bool { return has(value, path[1:]) })
	}
	return false
}

func TestExampleAlternatives(t *testing.T) {
	text := exampleText(t)
	c := mustParse(t, config.Uncommented(text, "tls", "cert_file", "key_file"), noEnv)
	if want := (config.TLS{CertFile: "/etc/gatehouse/tls.crt", KeyFile: "/etc/gatehouse/tls.key"}); c.TLS != want {
		t.Errorf("with tls: got %v, want %v", c.TLS, want)
	}
	both := config.Uncommented(text, "embedded", "file")
	if _, err := config.Parse("f", []byte(both), noEnv); err == nil || !strings.HasSuffix(err.Error(), "store.embedded: is there beside redis; keep one of them") {
		t.Errorf("with embedded beside redis: got %v", err)
	}
	c = mustParse(t, regexp.MustCompile(`(?m)^  redis:\n(    .*\n)+`).ReplaceAllString(both, ""), noEnv)
	if c.Store.Redis != nil || c.Store.Embedded == nil || c.Store.Embedded.File != "gatehouse.db.jsonl" {
		t.Errorf("with embedded in the place of redis: got %v and %v", c.Store.Redis, c.Store.Embedded)
	}
	c = mustParse(t, text, envOf(map[string]string{"GATEHOUSE_ADMIN_TOKEN": marker}))
	if string(c.AdminToken) != marker {
		t.Errorf("with GATEHOUSE_ADMIN_TOKEN: got %q", string(c.AdminToken))
	}
}

// TestExampleIsEmbedded: what the binary carries is the file at the top.
func TestExampleIsEmbedded(t *testing.T) {
	if diff := cmp.Diff(exampleText(t), string(config.Example())); diff != "" {
		t.Errorf("config.example.yaml and example.yaml differ; copy the first (-example +embedded):\n%s", diff)
	}
}

// TestExampleCatalogue: the contract's 22 permissions, and two for reading trail and usage.
func TestExampleCatalogue(t *testing.T) {
	catalogue, err := mustParse(t, exampleText(t), noEnv).Catalogue()
	if err != nil || len(catalogue.All()) != 24 {
		t.Errorf("got %v, %v; want 24 permissions", catalogue.All(), err)
	}
}
