package check_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// configOf is the configuration of a release.
func configOf(t *testing.T, made manifests) string {
	t.Helper()
	return fmt.Sprint(made.one(t, "ConfigMap", fullname).at("data", "config.yaml"))
}

// environmentOf is that of the container, with something for each secret.
func environmentOf(t *testing.T, made manifests) []string {
	t.Helper()
	list, _ := container(t, made)["env"].([]any)
	env := []string{}
	for _, one := range list {
		value := at(one, "value")
		if at(one, "valueFrom") != nil {
			value = "a-secret-of-more-than-16-characters"
		}
		env = append(env, fmt.Sprintf("%v=%v", at(one, "name"), value))
	}
	return env
}

func container(t *testing.T, made manifests) map[string]any {
	t.Helper()
	only, _ := made.one(t, "Deployment", fullname).at("spec", "template", "spec", "containers", 0).(map[string]any)
	return only
}

// TestGatehouseTakesTheConfiguration that the chart makes, with what the
// container has in its environment.
func TestGatehouseTakesTheConfiguration(t *testing.T) {
	for name, given := range valueSets(t) {
		made := mustRender(t, given, nil)
		file := writeFile(t, "config.yaml", configOf(t, made))
		if said, err := gatehouse(t, environmentOf(t, made), "check", "--config", file).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s\n%s", name, err, said, configOf(t, made))
		}
	}
	wrong := mustRender(t, valueSets(t)["minimal"], func(v values) { set(v, 1, "config", "limit") })
	if gatehouse(t, nil, "check", "--config", writeFile(t, "config.yaml", configOf(t, wrong))).Run() == nil {
		t.Error("a misspelt setting passes")
	}
}

// TestPodIsConfined: no privilege, no root, nothing to write but its data.
func TestPodIsConfined(t *testing.T) {
	for name, given := range valueSets(t) {
		made := mustRender(t, given, nil)
		pod := made.one(t, "Deployment", fullname).at("spec", "template", "spec")
		only := container(t, made)
		for _, row := range []struct{ got, want any }{
			{at(pod, "securityContext", "runAsNonRoot"), true},
			{at(pod, "securityContext", "runAsUser"), 65532.0},
			{at(pod, "securityContext", "seccompProfile", "type"), "RuntimeDefault"},
			{at(pod, "automountServiceAccountToken"), false},
			{at(pod, "hostNetwork"), nil},
			{at(only, "securityContext", "allowPrivilegeEscalation"), false},
			{at(only, "securityContext", "readOnlyRootFilesystem"), true},
			{at(only, "securityContext", "capabilities", "drop", 0), "ALL"},
			{at(only, "securityContext", "capabilities", "add"), nil},
			{at(only, "livenessProbe", "httpGet", "path"), "/livez"},
			{at(only, "readinessProbe", "httpGet", "path"), "/readyz"},
			{at(only, "livenessProbe", "httpGet", "port"), "admin"},
			{at(only, "readinessProbe", "httpGet", "port"), "admin"},
			{at(only, "command"), nil}, // the image's own
		} {
			if row.got != row.want {
				t.Errorf("%s: got %v, want %v\n%v", name, row.got, row.want, only)
			}
		}
		mounts, _ := only["volumeMounts"].([]any)
		for _, m := range mounts {
			if at(m, "readOnly") != true && at(m, "mountPath") != "/data" {
				t.Errorf("%s: %v can be written", name, m)
			}
			if at(m, "subPath") != nil {
				t.Errorf("%s: %v would never change", name, m)
			}
		}
	}
}

// TestPodHasTimeToDrain: to be forgotten by load balancers, to answer what is
// under way, and to close.
func TestPodHasTimeToDrain(t *testing.T) {
	const newcomers = 2 * time.Second
	for name, given := range valueSets(t) {
		made := mustRender(t, given, nil)
		var config struct {
			Grace string `json:"shutdown_grace"`
		}
		if err := yaml.Unmarshal([]byte(configOf(t, made)), &config); err != nil {
			t.Fatal(err)
		}
		grace, err := time.ParseDuration(config.Grace)
		if err != nil {
			t.Fatal(err)
		}
		seconds, _ := at(container(t, made), "lifecycle", "preStop", "sleep", "seconds").(float64)
		pod, _ := made.one(t, "Deployment", fullname).at("spec", "template", "spec", "terminationGracePeriodSeconds").(float64)
		needed := grace + newcomers + time.Duration(seconds)*time.Second
		if seconds < 1 || time.Duration(pod)*time.Second <= needed {
			t.Errorf("%s: the pod has %vs, sleeps for %vs, and needs more than %s", name, pod, seconds, needed)
		}
	}
}

// TestLastingSettingsReplaceThePods, and no other does: those are loaded. Which
// ones they are is told by the gateway's own list.
func TestLastingSettingsReplaceThePods(t *testing.T) {
	source, err := os.ReadFile("../../cmd/gatehouse/config/reload.go")
	if err != nil {
		t.Fatal(err)
	}
	lasting := regexp.MustCompile(`(?m)^\t\t\{"([a-z0-9_.]+)", &c\.`).FindAllStringSubmatch(string(source), -1)
	if len(lasting) < 10 {
		t.Fatalf("only %d settings were found in config/reload.go", len(lasting))
	}
	given := valueSets(t)["minimal"]
	before := podAnnotations(t, mustRender(t, given, nil))
	for _, found := range lasting {
		path := append([]string{"config"}, strings.Split(found[1], ".")...)
		change := func(v values) { set(v, values{"changed": "x"}, path...) }
		switch found[1] {
		case "listen", "admin_listen":
			continue // the chart's own
		case "shutdown_grace":
			change = func(v values) { set(v, 77, "shutdownGraceSeconds") }
		case "store":
			change = func(v values) { set(v, "9s", "config", "store", "timeout") }
		}
		if podAnnotations(t, mustRender(t, given, change)) == before {
			t.Errorf("a change of %s does not replace the pods", found[1])
		}
	}
	if podAnnotations(t, mustRender(t, given, func(v values) { set(v, "gatehouse-tls", "tls", "secretName") })) == before {
		t.Error("TLS does not replace the pods")
	}
	for _, path := range [][]string{{"config", "limits", "key"}, {"config", "routes"}, {"config", "log", "level"}, {"config", "cors", "origins"}} {
		if podAnnotations(t, mustRender(t, given, func(v values) { set(v, values{"changed": "x"}, path...) })) != before {
			t.Errorf("a change of %v replaces the pods", path)
		}
	}
}

func podAnnotations(t *testing.T, made manifests) string {
	t.Helper()
	return fmt.Sprint(made.one(t, "Deployment", fullname).at("spec", "template", "metadata", "annotations"))
}

// TestBadValuesAreRefused, with words that help.
func TestBadValuesAreRefused(t *testing.T) {
	for _, row := range []struct {
		name, base string
		change     func(values)
		want       string
	}{
		{"a misspelt value", "minimal", func(v values) { set(v, 3, "replica") }, "replica"},
		{"no store", "minimal", func(v values) { delete(v["config"].(values), "store") }, "store"},
		{"an address of its own", "minimal", func(v values) { set(v, ":80", "config", "listen") }, "listen"},
		{"an open admin token", "minimal", func(v values) { set(v, "open-sesame-0123456789", "config", "admin_token") }, "admin_token"},
		{"an open password", "minimal", func(v values) { set(v, "hunter2", "config", "store", "redis", "password") }, "password"},
		{"an open password of Sentinels", "minimal", func(v values) { set(v, "hunter2", "config", "store", "redis", "sentinel_password") }, "sentinel_password"},
		{"an open secret of a provider", "minimal", func(v values) {
			set(v, []any{values{"name": "sso", "client_secret": "hunter2"}}, "config", "dashboard", "providers")
		}, "client_secret"},
		{"an open token of a collector", "minimal", func(v values) { set(v, "Bearer hunter2", "config", "tracing", "headers", "Authorization") }, "Authorization"},
		{"a digest that is none", "minimal", func(v values) { set(v, "latest", "image", "digest") }, "digest"},
		{"a secret without a key", "minimal", func(v values) { set(v, values{"name": "x"}, "secrets", "X") }, "key"},
		{"two stores", "embedded", func(v values) { set(v, []any{"redis:6379"}, "config", "store", "redis", "addrs") }, "store"},
		{"one file, two pods", "embedded", func(v values) { set(v, 2, "replicas") }, "set replicas to 1"},
		{"an ingress for nobody", "minimal", func(v values) { set(v, true, "ingress", "enabled") }, "ingress.hosts"},
		{"a Prometheus that is shut out", "minimal", func(v values) { set(v, true, "serviceMonitor", "enabled") }, "adminFrom"},
	} {
		given := deepCopy(t, valueSets(t)[row.base])
		row.change(given)
		if _, err := render(t, given); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v, want an error with %q", row.name, err, row.want)
		}
	}
}

// TestOnlyTheNamedReachTheOperatorsPort: who may reach the public one alone does
// not.
func TestOnlyTheNamedReachTheOperatorsPort(t *testing.T) {
	for name, given := range valueSets(t) {
		allowed := fmt.Sprint(at(given, "networkPolicy", "adminFrom"))
		policy := mustRender(t, given, nil).one(t, "NetworkPolicy", fullname)
		rules, _ := policy.at("spec", "ingress").([]any)
		for _, rule := range rules {
			ports, _ := at(rule, "ports").([]any)
			open := slices.ContainsFunc(ports, func(p any) bool { return at(p, "port") == "admin" })
			if len(ports) == 0 || open && (at(rule, "from") == nil || fmt.Sprint(at(rule, "from")) != allowed) {
				t.Errorf("%s: others than %s reach the operators' port: %v", name, allowed, rule)
			}
		}
		for _, m := range mustRender(t, given, nil) {
			if m.kind() == "Service" && m.at("metadata", "name") == fullname && at(m.fields, "spec", "ports", 1) != nil {
				t.Errorf("%s: the public Service has more than the public port", name)
			}
		}
	}
}
