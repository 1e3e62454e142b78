package check_test

import (
	"slices"
	"testing"
)

// TestStoreIsMadeByAHookOfTheInstallation, and by nothing that runs again: a
// Redis that has lost its data must not become a new store.
func TestStoreIsMadeByAHookOfTheInstallation(t *testing.T) {
	for _, name := range []string{"minimal", "production"} {
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
	for name, change := range map[string]func(values){
		"minimal": func(v values) { set(v, false, "storeInit", "enabled") }, "embedded": func(values) {},
	} {
		if slices.Contains(mustRender(t, valueSets(t)[name], change).kinds(), "Job") {
			t.Errorf("%s makes a Job all the same", name)
		}
	}
}
