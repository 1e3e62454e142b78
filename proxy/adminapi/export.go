package adminapi

import (
	"bufio"
	"io"
	"net/http"
	"time"

	"go.uber.org/zap"

	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// exportPatience is for how long a client may take nothing of an export.
const exportPatience = 30 * time.Second

// export writes all there is of accounts, keys and users, with what users prove
// themselves by. Where it breaks off, so does the answer.
func (a *API) export(w http.ResponseWriter, r *http.Request, _ policy.Caller) error {
	if r.URL.RawQuery != "" {
		return problem.Invalid(problem.FieldError{Field: "query", Detail: "An export takes no parameters."})
	}
	out := &exportWriter{w: w, control: http.NewResponseController(w)}
	buffered := bufio.NewWriterSize(out, 64<<10)
	_, err := a.o.Export(r.Context(), buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err != nil && out.begun {
		a.o.Log.Error("an export broke off", zap.Error(err))
		panic(http.ErrAbortHandler)
	}
	return err
}

// exportWriter begins the answer with its first bytes, and gives the client
// more time as long as it takes some.
type exportWriter struct {
	w       http.ResponseWriter
	control *http.ResponseController
	begun   bool
}

var _ io.Writer = (*exportWriter)(nil)

func (e *exportWriter) Write(b []byte) (int, error) {
	if !e.begun {
		e.begun = true
		h := e.w.Header()
		h.Set("Content-Type", "application/jsonl")
		h.Set("Cache-Control", "no-store")
		h.Set("X-Content-Type-Options", "nosniff")
		e.w.WriteHeader(http.StatusOK)
	}
	// A writer without deadlines, as in tests, has nobody to wait for.
	_ = e.control.SetWriteDeadline(time.Now().Add(exportPatience)) //nolint:forbidigo // a socket knows no other clock
	return e.w.Write(b)
}
