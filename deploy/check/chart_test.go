// Package check_test holds the files of deploy/ against the tools that read them.
package check_test

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/common"
	"helm.sh/helm/v4/pkg/chart/common/util"
	chart "helm.sh/helm/v4/pkg/chart/v2"
	"helm.sh/helm/v4/pkg/chart/v2/loader"
	"helm.sh/helm/v4/pkg/engine"
	"sigs.k8s.io/yaml"
)

const (
	chartFolder = "../helm/gatehouse"
	release     = "edge"
	fullname    = "edge-gatehouse"
)

// values are what a release is made with.
type values = map[string]any

// valueSets are the examples, by name.
func valueSets(t *testing.T) map[string]values {
	t.Helper()
	files, err := filepath.Glob("../helm/values/*.yaml")
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	sets := map[string]values{}
	for _, file := range files {
		read, err := common.ReadValuesFile(file)
		if err != nil {
			t.Fatal(err)
		}
		sets[strings.TrimSuffix(filepath.Base(file), ".yaml")] = read
	}
	return sets
}

func loadChart(t *testing.T) *chart.Chart {
	t.Helper()
	loaded, err := loader.LoadDir(chartFolder)
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}

// render makes the manifests, as helm does.
func render(t *testing.T, given values) (manifests, error) {
	t.Helper()
	loaded := loadChart(t)
	options := common.ReleaseOptions{Name: release, Namespace: "api", Revision: 1, IsInstall: true}
	all, err := util.ToRenderValues(loaded, given, options, common.DefaultCapabilities)
	if err != nil {
		return nil, err
	}
	files, err := engine.Engine{Strict: true}.RenderWithContext(t.Context(), loaded, all)
	if err != nil {
		return nil, err
	}
	var made manifests
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if strings.HasSuffix(name, ".txt") {
			continue
		}
		for _, document := range strings.Split(files[name], "\n---\n") {
			if m := (manifest{}); strings.TrimSpace(document) != "" {
				if err := yaml.UnmarshalStrict([]byte(document), &m.fields); err != nil {
					return nil, fmt.Errorf("%s: %w\n%s", name, err, document)
				}
				if m.text = document; m.fields != nil {
					made = append(made, m)
				}
			}
		}
	}
	return made, nil
}

// mustRender is for values that are good, with a change.
func mustRender(t *testing.T, given values, change func(values)) manifests {
	t.Helper()
	copied := deepCopy(t, given)
	if change != nil {
		change(copied)
	}
	made, err := render(t, copied)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func deepCopy(t *testing.T, v values) values {
	t.Helper()
	raw, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var copied values
	if err := yaml.Unmarshal(raw, &copied); err != nil {
		t.Fatal(err)
	}
	return copied
}

// manifest is one object for the API server.
type manifest struct {
	text   string
	fields map[string]any
}

type manifests []manifest

func (m manifest) kind() string { return fmt.Sprint(m.fields["kind"]) }

// at returns what stands at the path of names and indexes, nil for nothing.
func (m manifest) at(path ...any) any { return at(m.fields, path...) }

func at(v any, path ...any) any {
	for _, step := range path {
		switch step := step.(type) {
		case string:
			fields, _ := v.(map[string]any)
			v = fields[step]
		case int:
			list, _ := v.([]any)
			if step >= len(list) {
				return nil
			}
			v = list[step]
		}
	}
	return v
}

func (all manifests) kinds() []string {
	var kinds []string
	for _, m := range all {
		kinds = append(kinds, m.kind())
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// one returns the only object of the kind with that name.
func (all manifests) one(t *testing.T, kind, name string) manifest {
	t.Helper()
	for _, m := range all {
		if m.kind() == kind && m.at("metadata", "name") == name {
			return m
		}
	}
	t.Fatalf("there is no %s %s", kind, name)
	return manifest{}
}

// set puts a value at a path of names, and makes what is missing.
func set(v values, value any, path ...string) {
	for _, name := range path[:len(path)-1] {
		next, ok := v[name].(map[string]any)
		if !ok {
			next = values{}
			v[name] = next
		}
		v = next
	}
	v[path[len(path)-1]] = value
}

// writeFile writes a file of the test's own, and returns its path.
func writeFile(t *testing.T, name, content string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, bytes.TrimLeft([]byte(content), "\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
