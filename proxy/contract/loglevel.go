package contract

import (
	"maps"
	"slices"
	"strconv"
	"strings"
)

// LogLevels are the levels of the log, module by module.
type LogLevels struct {
	Modules map[string]string `json:"modules"`
}

// LogLevelChange is the body of a request that changes levels: those of Modules,
// and of all others where there is a Level.
type LogLevelChange struct {
	Level   Given[string]            `json:"level"`
	Modules Given[map[string]string] `json:"modules"`
}

// Parse returns the new levels of what changes of the modules that there are, or
// a 422 problem that names each fault.
func (c LogLevelChange) Parse(modules map[string]string) (map[string]string, error) {
	var wrong faults
	changed := map[string]string{}
	if c.Level.Present && !isLogLevel(c.Level.Value) {
		wrong.add("level", unknownLevel)
	}
	for name := range modules {
		if c.Level.Present {
			changed[name] = c.Level.Value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Modules.Value)) {
		switch _, known := modules[name]; {
		case !known:
			wrong.add("modules", strconv.Quote(shown(name))+" is no module of the log. There are "+strings.Join(slices.Sorted(maps.Keys(modules)), ", ")+".")
		case !isLogLevel(c.Modules.Value[name]):
			wrong.add("modules."+name, unknownLevel)
		}
		changed[name] = c.Modules.Value[name]
	}
	if len(changed) == 0 {
		wrong.add("body", "Give a level, or modules with a level each.")
	}
	if err := wrong.err(); err != nil {
		return nil, err
	}
	return changed, nil
}

const unknownLevel = "This is no level. Write debug, info, warn or error."

func isLogLevel(s string) bool {
	return slices.Contains([]string{"debug", "info", "warn", "error"}, s)
}
