package adminapi_test

import (
	"maps"
	"net/http"
	"strings"
	"testing"

	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

const logLevels = "/admin/v1/log-levels"

func TestLogLevelsAreShownAndChanged(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		name, body string
		want       map[string]string
	}{
		{"one module", `{"modules":{"store":"debug"}}`, map[string]string{"access": "info", "store": "debug"}},
		{"all modules", `{"level":"error"}`, map[string]string{"access": "error", "store": "error"}},
		{"all but one", `{"level":"error","modules":{"access":"debug"}}`, map[string]string{"access": "debug", "store": "error"}},
	} {
		w := newWorld(t)
		out := w.must(http.MethodPatch, logLevels, row.body)
		if !maps.Equal(w.levels.modules, row.want) || w.levels.by.Person.Kind != policy.ActorOperator || !w.levels.by.Client.IsValid() || w.levels.by.RequestID == "" {
			t.Errorf("%s: the levels are %v, set by %+v", row.name, w.levels.modules, w.levels.by)
		}
		if shown := w.must(http.MethodGet, logLevels, ""); shown.Body.String() != out.Body.String() {
			t.Errorf("%s: answered %s, and then %s", row.name, out.Body, shown.Body)
		}
	}
	golden(t, "log_levels", newWorld(t).must(http.MethodGet, logLevels, ""))
}

// TestLogLevelsThatAreWrongChangeNothing, also where others in the body are right.
func TestLogLevelsThatAreWrongChangeNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, row := range []struct {
		body string
		code problem.Code
		says string
	}{
		{`{}`, problem.ValidationFailed, `"body"`},
		{`{"modules":{}}`, problem.ValidationFailed, `"body"`},
		{`{"level":"loud"}`, problem.ValidationFailed, `"level"`},
		{`{"level":""}`, problem.ValidationFailed, `"level"`},
		{`{"level":null}`, problem.ValidationFailed, `"level"`},
		{`{"level":"INFO"}`, problem.ValidationFailed, `"level"`},
		{`{"level":"fatal"}`, problem.ValidationFailed, `"level"`},
		{`{"modules":null}`, problem.ValidationFailed, `"modules"`},
		{`{"modules":[]}`, problem.ValidationFailed, `"modules"`},
		{`{"modules":{"store":1}}`, problem.ValidationFailed, `"modules.store"`},
		{`{"modules":{"access":"debug","store":"x"}}`, problem.ValidationFailed, `"modules.store"`},
		{`{"modules":{"access":"debug","stores":"info"}}`, problem.ValidationFailed, `access, store.`},
		{`{"modules":{"access":"debug"},"levels":"info"}`, problem.ValidationFailed, `"levels"`},
		{`{"modules":{"access":"debug","access":"info"}}`, problem.InvalidRequest, ""},
		{`{"level":"debug"} x`, problem.InvalidRequest, ""},
		{`null`, problem.ValidationFailed, `"body"`},
		{`{"level":"` + strings.Repeat("x", 70<<10) + `"}`, problem.BodyTooLarge, ""},
	} {
		check(t, w.do(http.MethodPatch, logLevels, row.body), row.code, row.says)
	}
	check(t, w.do(http.MethodPut, logLevels, `{"level":"debug"}`), problem.MethodNotAllowed, "")
	if got := w.levels.modules; got["access"] != "info" || got["store"] != "warn" {
		t.Errorf("the levels are %v", got)
	}
}
