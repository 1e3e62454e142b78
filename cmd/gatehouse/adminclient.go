package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"text/tabwriter"
	"time"
)

const (
	adminClientTimeout = 30 * time.Second
	maxAnswer          = 64 << 20
)

// adminFlags are those of every command that talks to a running gateway.
type adminFlags struct {
	Admin string `help:"The operators' address of a running gateway." default:"http://127.0.0.1:9090" env:"GATEHOUSE_ADMIN_URL" placeholder:"URL"`
	JSON  bool   `help:"Print the gateway's answer as it is, for scripts." name:"json"`
}

// problemAnswer is what an error answer says (RFC 9457).
type problemAnswer struct {
	Detail    string `json:"detail"`
	Error     string `json:"error"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors"`
}

// refusedError is an error answer of the gateway.
type refusedError struct {
	status int
	answer problemAnswer
}

func (e *refusedError) Error() string {
	if e.answer.Error == "" {
		return fmt.Sprintf("the gateway answered %d", e.status)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%s (%s, request %s)", plain(e.answer.Detail), plain(e.answer.Error), plain(e.answer.RequestID))
	for _, field := range e.answer.Errors {
		fmt.Fprintf(&text, "\n  %s: %s", plain(field.Field), plain(field.Detail))
	}
	return text.String()
}

// remote is a gateway that commands talk to, and as whom.
type remote struct {
	base          string
	flag          string // that named it
	prefix        string // of every path
	header, value string // the credential
	json          bool
}

// remote is the operators' side of the gateway.
func (f *adminFlags) remote(t *terminal) (*remote, error) {
	token, _ := t.lookupEnv("GATEHOUSE_ADMIN_TOKEN")
	if token == "" {
		return nil, usageError{errors.New("set GATEHOUSE_ADMIN_TOKEN to the gateway's admin_token")}
	}
	return newRemote(remote{base: f.Admin, flag: "--admin", prefix: "/admin/v1", header: "Authorization", value: "Bearer " + token, json: f.JSON})
}

func newRemote(r remote) (*remote, error) {
	target, err := url.Parse(r.base)
	if err != nil || target.Host == "" || (target.Scheme != "http" && target.Scheme != "https") {
		return nil, usageError{fmt.Errorf("%s %s: not a URL such as http://127.0.0.1:9090", r.flag, r.base)}
	}
	r.base = strings.TrimSuffix(r.base, "/")
	return &r, nil
}

// call makes one request and returns the answer's bytes. It returns a
// usageError, an unreachableError, or a *refusedError.
func (r *remote) call(t *terminal, method, path string, body any) ([]byte, error) {
	answer, err := r.send(t, method, path, body, adminClientTimeout)
	if err != nil {
		return nil, err
	}
	return readAnswer(answer)
}

// send makes one request.
func (r *remote) send(t *terminal, method, path string, body any, timeout time.Duration) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		raw, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("encode request: %w", err)
		}
		content = bytes.NewReader(raw)
	}
	request, err := http.NewRequestWithContext(t.ctx, method, r.base+r.prefix+path, content)
	if err != nil {
		return nil, usageError{fmt.Errorf("%s %s: %w", r.flag, r.base, err)}
	}
	request.Header.Set(r.header, r.value)
	request.Header.Set("User-Agent", "gatehouse-cli")
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	// A redirect could carry the token elsewhere, and the API makes none.
	client := &http.Client{Timeout: timeout, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	answer, err := client.Do(request)
	if err != nil {
		return nil, unreachableError{fmt.Errorf("no gateway reached: %w", err)}
	}
	return answer, nil
}

// readAnswer returns the bytes of a success.
func readAnswer(answer *http.Response) ([]byte, error) {
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err = errors.Join(err, answer.Body.Close()); err != nil {
		return nil, unreachableError{fmt.Errorf("the answer broke off: %w", err)}
	}
	if answer.StatusCode < 200 || answer.StatusCode > 299 {
		refused := &refusedError{status: answer.StatusCode}
		if json.Unmarshal(raw, &refused.answer) != nil {
			refused.answer = problemAnswer{}
		}
		return nil, refused
	}
	return raw, nil
}

// do calls and prints: the answer as it is with --json, and otherwise what
// show makes of it.
func (r *remote) do(t *terminal, method, path string, body any, show func(answer []byte) error) error {
	raw, err := r.call(t, method, path, body)
	if err != nil {
		return err
	}
	if r.json {
		return t.print("%s\n", bytes.TrimSpace(raw))
	}
	return show(raw)
}

func (f *adminFlags) do(t *terminal, method, path string, body any, show func(answer []byte) error) error {
	r, err := f.remote(t)
	if err != nil {
		return err
	}
	return r.do(t, method, path, body, show)
}

func (f *adminFlags) list(t *terminal, path string, show func(items []json.RawMessage) error) error {
	r, err := f.remote(t)
	if err != nil {
		return err
	}
	return r.list(t, path, url.Values{}, 0, show)
}

// list collects the pages of a listing, or so many items of it where most is
// not 0, and prints them: one JSON array with --json, and otherwise what show
// makes of it.
func (r *remote) list(t *terminal, path string, query url.Values, most int, show func(items []json.RawMessage) error) error {
	items := []json.RawMessage{}
	for {
		raw, err := r.call(t, http.MethodGet, path+"?"+query.Encode(), nil)
		if err != nil {
			return err
		}
		var page struct {
			Data       []json.RawMessage `json:"data"`
			NextCursor *string           `json:"next_cursor"`
		}
		if err := json.Unmarshal(raw, &page); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		items = append(items, page.Data...)
		if page.NextCursor == nil || most > 0 && len(items) >= most {
			break
		}
		query.Set("cursor", *page.NextCursor)
	}
	if most > 0 && len(items) > most {
		items = items[:most]
	}
	if r.json {
		raw, err := json.Marshal(items)
		if err != nil {
			return fmt.Errorf("encode: %w", err)
		}
		return t.print("%s\n", raw)
	}
	return show(items)
}

// dataOf decodes the data of an answer.
func dataOf[T any](answer []byte) (T, error) {
	var envelope struct {
		Data T `json:"data"`
	}
	if err := json.Unmarshal(answer, &envelope); err != nil {
		return envelope.Data, fmt.Errorf("read answer: %w", err)
	}
	return envelope.Data, nil
}

func (t *terminal) print(format string, args ...any) error {
	_, err := fmt.Fprintf(t.out, format, args...)
	return err
}

// table prints rows in columns, the first of which are the headings.
func (t *terminal) table(rows [][]string) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// list spells a list for a table.
func listed(items []string, empty string) string {
	if len(items) == 0 {
		return empty
	}
	return strings.Join(items, ",")
}

func moment(unixSeconds int64) string { return time.Unix(unixSeconds, 0).UTC().Format(time.RFC3339) }
