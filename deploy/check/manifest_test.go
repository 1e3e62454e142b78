package check_test

import (
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/yannh/kubeconform/pkg/validator"
)

// kubeconform makes a validator with the schemas of schemas/definitions.json,
// and no others.
func kubeconform(t *testing.T) validator.Validator {
	t.Helper()
	raw, err := os.ReadFile("schemas/definitions.json")
	if err != nil {
		t.Fatal(err)
	}
	var known struct {
		Kinds map[string]string          `json:"kinds"`
		Defs  map[string]json.RawMessage `json:"$defs"`
	}
	if err := json.Unmarshal(raw, &known); err != nil {
		t.Fatal(err)
	}
	folder := t.TempDir()
	for kind, definition := range known.Kinds {
		schema, err := json.Marshal(map[string]any{"$ref": "#/$defs/" + definition, "$defs": known.Defs})
		if err != nil {
			t.Fatal(err)
		}
		// k8s.io.api.apps.v1.Deployment is of the version v1.
		parts := strings.Split(definition, ".")
		name := strings.ToLower(kind) + "-" + parts[len(parts)-2] + ".json"
		if err := os.WriteFile(filepath.Join(folder, name), schema, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	v, err := validator.New([]string{folder + "/{{.ResourceKind}}-{{.ResourceAPIVersion}}.json"}, validator.Opts{Strict: true})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// invalid returns what the API server would say against the text.
func invalid(v validator.Validator, text string) error {
	for _, result := range v.Validate("manifest", io.NopCloser(strings.NewReader(text))) {
		if result.Status != validator.Valid {
			return result.Err
		}
	}
	return nil
}

// TestManifestsAreWhatKubernetesKnows, for each set of values and for each thing
// that can be turned on.
func TestManifestsAreWhatKubernetesKnows(t *testing.T) {
	v := kubeconform(t)
	var kinds []string
	for name, given := range valueSets(t) {
		made := mustRender(t, given, nil)
		kinds = append(kinds, made.kinds()...)
		for _, m := range made {
			if err := invalid(v, m.text); err != nil {
				t.Errorf("%s: %s: %v\n%s", name, m.kind(), err, m.text)
			}
			if m.at("metadata", "namespace") != "api" {
				t.Errorf("%s: %s is in the namespace %v", name, m.kind(), m.at("metadata", "namespace"))
			}
		}
	}
	for _, want := range []string{
		"ConfigMap", "Deployment", "HorizontalPodAutoscaler", "Ingress", "Job", "NetworkPolicy", "PersistentVolumeClaim", "PodDisruptionBudget",
		"Service", "ServiceAccount", "ServiceMonitor",
	} {
		if !slices.Contains(kinds, want) {
			t.Errorf("no set of values makes a %s", want)
		}
	}
}

// TestSchemasAreStrict: a manifest with a fault is noticed.
func TestSchemasAreStrict(t *testing.T) {
	v := kubeconform(t)
	made := mustRender(t, valueSets(t)["production"], nil)
	for _, row := range []struct{ kind, name, old, replacement string }{
		{"Deployment", fullname, "readOnlyRootFilesystem", "readOnlyRootFileSystem"},
		{"Deployment", fullname, "minReadySeconds:", "minReadySecond:"},
		{"Deployment", fullname, "imagePullPolicy: IfNotPresent", "imagePullPolicy: Sometimes"},
		{"Deployment", fullname, "containerPort: 8080", `containerPort: "8080"`},
		{"PodDisruptionBudget", fullname, "AlwaysAllow", "Always"},
		{"NetworkPolicy", fullname, "protocol: TCP", "protocol: HTTP"},
		{"HorizontalPodAutoscaler", fullname, "averageUtilization: 70", "averageUtilization: most"},
		{"ServiceMonitor", fullname, "path:", "paths:"},
		{"Service", fullname + "-admin", "apiVersion: v1", "apiVersion: v2"},
	} {
		whole := made.one(t, row.kind, row.name).text
		text := strings.Replace(whole, row.old, row.replacement, 1)
		if text == whole {
			t.Errorf("the %s has no %q", row.kind, row.old)
		}
		if invalid(v, text) == nil {
			t.Errorf("a %s with %q passes", row.kind, row.replacement)
		}
	}
}

// TestSelectorsFindThePods that the Deployment makes.
func TestSelectorsFindThePods(t *testing.T) {
	made := mustRender(t, valueSets(t)["production"], nil)
	pod := made.one(t, "Deployment", fullname).at("spec", "template", "metadata", "labels")
	admin := made.one(t, "Service", fullname+"-admin")
	for _, row := range []struct {
		kind, name string
		path       []any
		labels     any
	}{
		{"Deployment", fullname, []any{"spec", "selector", "matchLabels"}, pod},
		{"Service", fullname, []any{"spec", "selector"}, pod},
		{"Service", fullname + "-admin", []any{"spec", "selector"}, pod},
		{"PodDisruptionBudget", fullname, []any{"spec", "selector", "matchLabels"}, pod},
		{"NetworkPolicy", fullname, []any{"spec", "podSelector", "matchLabels"}, pod},
		{"ServiceMonitor", fullname, []any{"spec", "selector", "matchLabels"}, admin.at("metadata", "labels")},
	} {
		wanted, _ := made.one(t, row.kind, row.name).at(row.path...).(map[string]any)
		if len(wanted) == 0 {
			t.Errorf("%s %s selects everything", row.kind, row.name)
		}
		for label, value := range wanted {
			if label == "helm.sh/chart" || label == "app.kubernetes.io/version" {
				t.Errorf("%s %s selects by %s, which an upgrade changes", row.kind, row.name, label)
			}
			if at(row.labels, label) != value {
				t.Errorf("%s %s selects %s=%v, and there is %v", row.kind, row.name, label, value, row.labels)
			}
		}
	}
	if ports := at(made.one(t, "ServiceMonitor", fullname).fields, "spec", "endpoints", 0, "port"); ports != admin.at("spec", "ports", 0, "name") {
		t.Errorf("the ServiceMonitor asks the port %v", ports)
	}
	if target := made.one(t, "HorizontalPodAutoscaler", fullname).at("spec", "scaleTargetRef", "name"); target != fullname {
		t.Errorf("the autoscaler scales %v", target)
	}
	if replicas := made.one(t, "Deployment", fullname).at("spec", "replicas"); replicas != nil {
		t.Errorf("beside an autoscaler there are %v replicas", replicas)
	}
}
