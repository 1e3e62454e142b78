package adminapi

import (
	"net/http"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// LogLevels are the levels of the log's modules.
type LogLevels interface {
	// Levels is the level of each module.
	Levels() map[string]string
	// SetLevels changes those of the modules that are named, and logs that and
	// who did it. All of them exist.
	SetLevels(by policy.Caller, levels map[string]string)
}

func (a *API) getLogLevels(w http.ResponseWriter, _ *http.Request, _ policy.Caller) error {
	return a.showLogLevels(w)
}

func (a *API) changeLogLevels(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	var body contract.LogLevelChange
	if err := contract.ReadBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	levels, err := body.Parse(a.o.Levels.Levels())
	if err != nil {
		return err
	}
	a.o.Levels.SetLevels(by, levels)
	return a.showLogLevels(w)
}

func (a *API) showLogLevels(w http.ResponseWriter) error {
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Data: contract.LogLevels{Modules: a.o.Levels.Levels()}})
}
