package check_test

import (
	"slices"
	"testing"
)

// TestStoreIsMadeByAHookOfTheInstallation, and by nothing that runs again: a
// Redis that has lost its data must not become a new store.
func TestStoreIsMadeByAHookOfTheInstallation(t *testing.T) {
	for _, name := range []string{"minimal", "production", "embedded"} {
		made := mustRender(t, valueSets(t)[name], nil)
		job := made.one(t, "Job", fullname+"-store-init")
		pod := job.at("spec", "template", "spec")
		only := at(pod, "containers", 0)
		for _, row := range []struct{ got, want any }{
			{job.at("metadata", "annotations", "helm.sh/hook"), "post-install"},
			{at(only, "args", 0), "store"},
			{at(only, "args", 1), "init"},
			{at(only, "args", 2), "--if-absent"},
			{at(only, "securityContext", "readOnlyRootFilesystem"), true},
			{at(only, "securityContext", "capabilities", "drop", 0), "ALL"},
			{at(pod, "securityContext", "runAsNonRoot"), true},
			{at(pod, "restartPolicy"), "Never"},
			{made.one(t, "Deployment", fullname).at("spec", "template", "spec", "initContainers"), nil},
		} {
			if row.got != row.want {
				t.Errorf("%s: got %v, want %v", name, row.got, row.want)
			}
		}
		service := made.one(t, "Service", fullname).at("spec", "selector").(map[string]any)
		labels, _ := job.at("spec", "template", "metadata", "labels").(map[string]any)
		if labels["app.kubernetes.io/name"] == service["app.kubernetes.io/name"] {
			t.Errorf("%s: the Service sends requests to the Job", name)
		}
	}
	without := mustRender(t, valueSets(t)["minimal"], func(v values) { set(v, false, "storeInit", "enabled") })
	if slices.Contains(without.kinds(), "Job") {
		t.Error("it cannot be switched off")
	}
}
