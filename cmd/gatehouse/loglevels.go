package main

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"gatehouse/proxy/contract"
)

type logLevelCommand struct {
	adminFlags
	Level []string `arg:"" optional:"" help:"MODULE=LEVEL, or a LEVEL for all modules: debug, info, warn or error. None: show the levels." placeholder:"LEVEL"`
}

// Run shows or changes the levels of one gateway's log, until it is restarted or
// its configuration says otherwise.
func (c *logLevelCommand) Run(t *terminal) error {
	if len(c.Level) == 0 {
		return c.do(t, http.MethodGet, "/log-levels", nil, t.showLogLevels)
	}
	body := struct {
		Level   string            `json:"level,omitempty"`
		Modules map[string]string `json:"modules,omitempty"`
	}{Modules: map[string]string{}}
	for _, said := range c.Level {
		module, level, named := strings.Cut(said, "=")
		_, again := body.Modules[module]
		switch {
		case again, !named && body.Level != "":
			return usageError{fmt.Errorf("%s: there is another level for the same", said)}
		case named && (module == "" || level == ""):
			return usageError{fmt.Errorf("%s: write MODULE=LEVEL", said)}
		case named:
			body.Modules[module] = level
		default:
			body.Level = said
		}
	}
	return c.do(t, http.MethodPatch, "/log-levels", body, t.showLogLevels)
}

func (t *terminal) showLogLevels(answer []byte) error {
	levels, err := dataOf[contract.LogLevels](answer)
	if err != nil {
		return err
	}
	rows := [][]string{{"MODULE", "LEVEL"}}
	for _, module := range slices.Sorted(maps.Keys(levels.Modules)) {
		rows = append(rows, []string{module, levels.Modules[module]})
	}
	return t.table(rows)
}
