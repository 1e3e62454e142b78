package main_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse/proxy/contract/contracttest"
)

// request is a request as a client writes it, byte for byte.
type request struct {
	from    string // the client's own address; "" for 127.0.0.1
	to      string // where it connects; "" for the gateway's address
	method  string
	target  string
	host    string
	header  []string // lines "Name: value"
	body    string
	chunked bool
}

// with returns the request with more header lines.
func (r request) with(lines ...string) request {
	r.header = append(slices.Clone(r.header), lines...)
	return r
}

// without returns the request without the header, in that spelling.
func (r request) without(name string) request {
	r.header = slices.DeleteFunc(slices.Clone(r.header), func(line string) bool { return strings.HasPrefix(line, name+": ") })
	return r
}

// at returns the request with that method and target.
func (r request) at(method, target string) request {
	r.method, r.target = method, target
	return r
}

// by returns the request with that token, and no other credential.
func (r request) by(token string) request {
	return r.without("api-token").without("Authorization").with("api-token: " + token)
}

func (r request) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.method, r.target, r.host)
	for _, line := range r.header {
		b.WriteString(line + "\r\n")
	}
	switch {
	case r.chunked:
		fmt.Fprintf(&b, "Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(r.body), r.body)
	case r.body != "":
		fmt.Fprintf(&b, "Content-Length: %d\r\n\r\n%s", len(r.body), r.body)
	default:
		b.WriteString("\r\n")
	}
	return b.Bytes()
}

// answer is what came back.
type answer struct {
	proto  string
	status int
	header http.Header
	body   string
	last   bool // it said Connection: close; net/http takes that out of the header
}

// send sends the request on a connection of its own.
func (g *gateway) send(t *testing.T, r request) answer {
	t.Helper()
	a, err := g.exchange(r)
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.target, err)
	}
	checkContract(t, r, a)
	return a
}

var theContract = sync.OnceValues(contracttest.Load)

// checkContract holds an exchange with the key API against openapi.yaml.
func checkContract(t *testing.T, r request, a answer) {
	t.Helper()
	if !strings.HasPrefix(r.target, keysPath) && !strings.HasPrefix(r.target, whoamiPath) && !strings.HasPrefix(r.target, auditPath) {
		return
	}
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	header := http.Header{}
	for _, line := range r.header {
		name, value, _ := strings.Cut(line, ": ")
		header.Add(name, value)
	}
	err = c.Check(t.Context(), contracttest.Exchange{
		Method: r.method, Target: r.target, Header: header, Body: r.body, Status: a.status, AnswerHeader: a.header, Answer: a.body,
	})
	if err != nil {
		t.Errorf("not in the contract: %v", err)
	}
}

func (g *gateway) exchange(r request) (answer, error) {
	c, err := g.dial(r)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = c.Close() }() // the answer was read
	return exchangeOn(c, bufio.NewReader(c), r.method, r.bytes())
}

func (g *gateway) dial(r request) (net.Conn, error) {
	dialer := net.Dialer{Timeout: patience}
	if r.from != "" {
		dialer.LocalAddr = &net.TCPAddr{IP: net.ParseIP(r.from)}
	}
	to := g.addr
	if r.to != "" {
		to = r.to
	}
	return dialer.Dial("tcp", to)
}

// exchangeOn writes the bytes and reads one answer. An answer may come before
// all was written.
func exchangeOn(c net.Conn, in *bufio.Reader, method string, raw []byte) (answer, error) {
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return answer{}, err
	}
	_, written := c.Write(raw)
	response, err := http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		return answer{}, errors.Join(written, err)
	}
	body, err := io.ReadAll(response.Body)
	if err = errors.Join(err, response.Body.Close()); err != nil {
		return answer{}, err
	}
	return answer{proto: response.Proto, status: response.StatusCode, header: response.Header, body: string(body), last: response.Close}, nil
}

// The challenges of 401 and 403 (RFC 6750 §3).
const (
	challenge = `Bearer realm="gatehouse"`
	badToken  = `Bearer realm="gatehouse", error="invalid_token"`
)

func lacks(permission string) string {
	return `Bearer realm="gatehouse", error="insufficient_scope", scope="` + permission + `"`
}

// refusal is an error answer as the contract promises it.
type refusal struct {
	status    int
	code      string
	challenge string // WWW-Authenticate
	allow     string
	detail    string // a part of the detail
	retry     bool   // Retry-After is there
	field     string // a field that a 422 names
}

type problemDocument struct {
	Type      string `json:"type"`
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail"`
	Success   *bool  `json:"success"`
	Error     string `json:"error"`
	RequestID string `json:"request_id"`
	Errors    []struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	} `json:"errors"`
}

// check holds an answer against the refusal that it must be.
func (want refusal) check(t *testing.T, got answer) {
	t.Helper()
	var p problemDocument
	decoder := json.NewDecoder(strings.NewReader(got.body))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&p); err != nil {
		t.Errorf("got %d with a body that is no problem: %v\n%s", got.status, err, got.body)
		return
	}
	if got.status != want.status || p.Error != want.code {
		t.Errorf("got %d %s (%s), want %d %s", got.status, p.Error, p.Detail, want.status, want.code)
	}
	isFailure := p.Success != nil && !*p.Success
	if p.Type != "about:blank" || p.Title != http.StatusText(got.status) || p.Status != got.status || !isFailure || p.Detail == "" {
		t.Errorf("the problem is incomplete: %s", got.body)
	}
	if p.RequestID == "" || p.RequestID != got.header.Get("X-Request-Id") {
		t.Errorf("got request_id %q and X-Request-Id %q, want the same", p.RequestID, got.header.Get("X-Request-Id"))
	}
	if !strings.Contains(p.Detail, want.detail) {
		t.Errorf("got the detail %q, want %q in it", p.Detail, want.detail)
	}
	if named := len(p.Errors) > 0; named != (want.status == http.StatusUnprocessableEntity) {
		t.Errorf("a 422, and only a 422, names fields: %s", got.body)
	}
	if want.field != "" && !slices.ContainsFunc(p.Errors, func(e struct {
		Field  string `json:"field"`
		Detail string `json:"detail"`
	},
	) bool {
		return e.Field == want.field && e.Detail != ""
	}) {
		t.Errorf("the answer does not name %s: %s", want.field, got.body)
	}
	header := map[string]string{
		"Content-Type": "application/problem+json", "Cache-Control": "no-store", "Location": "",
		"WWW-Authenticate": want.challenge, "Allow": want.allow,
	}
	for name, value := range header {
		if values := strings.Join(got.header.Values(name), " | "); values != value {
			t.Errorf("got %s %q, want %q", name, values, value)
		}
	}
	if retry := got.header.Get("Retry-After"); want.retry != regexp.MustCompile(`^[1-9][0-9]*$`).MatchString(retry) {
		t.Errorf("got Retry-After %q", retry)
	}
}

// withheld are headers that must not reach a backend as a client sent them.
var withheld = []string{
	"sec-websocket-", "api-token", "authorization", "x-gatehouse-", "x-forwarded-", "forwarded", "x-real-ip", "true-client-ip", "cf-connecting-ip",
	"x-request-id", "traceparent", "tracestate", "x-original-url", "x-rewrite-url", "x-http-method-override",
	"connection", "keep-alive", "trailer", "upgrade", "proxy-",
}

// identity is what Gatehouse must tell a backend.
type identity struct {
	account, key, subaccount, permission string
	client                               string // X-Forwarded-For; "" for 127.0.0.1
	proto                                string // "" for http
}

// checkForwarded holds what a backend saw against what was sent, header by
// header: nothing may be lost, changed or added that is not named here.
func checkForwarded(t *testing.T, sent request, got received, id identity, requestID string) {
	t.Helper()
	if got.method != sent.method || got.target != sent.target || got.host != sent.host || got.body != sent.body || got.proto != "HTTP/1.1" {
		t.Errorf("the backend saw\n%s %s %s for %s with body %q,\nwant\n%s %s for %s with body %q",
			got.method, got.target, got.proto, got.host, got.body, sent.method, sent.target, sent.host, sent.body)
	}
	want := map[string][]string{"host": {sent.host}}
	gone := slices.Clone(withheld)
	for _, line := range sent.header {
		if names, ok := strings.CutPrefix(line, "Connection: "); ok {
			gone = append(gone, strings.Split(strings.ToLower(names), ", ")...)
		}
	}
	for _, line := range sent.header {
		name, value, _ := strings.Cut(line, ": ")
		name = strings.ToLower(name)
		plain := strings.ReplaceAll(name, "_", "-")
		if !slices.ContainsFunc(gone, func(w string) bool { return plain == w || strings.HasSuffix(w, "-") && strings.HasPrefix(plain, w) }) {
			want[name] = append(want[name], value)
		}
	}
	switch {
	case sent.chunked:
		want["transfer-encoding"] = []string{"chunked"}
	case sent.body != "":
		want["content-length"] = []string{fmt.Sprint(len(sent.body))}
	case sent.method == http.MethodPost || sent.method == http.MethodPut:
		want["content-length"] = []string{"0"}
	}
	maps.Copy(want, map[string][]string{
		"x-gatehouse-account": {id.account}, "x-gatehouse-key-id": {id.key}, "x-gatehouse-permission": {id.permission},
		"x-request-id": {requestID}, "x-forwarded-for": {orElse(id.client, "127.0.0.1")}, "x-forwarded-host": {sent.host},
		"x-forwarded-proto": {orElse(id.proto, "http")},
	})
	if id.subaccount != "" {
		want["x-gatehouse-subaccount"] = []string{id.subaccount}
	}
	trace := strings.Join(got.header["traceparent"], " | ")
	if !regexp.MustCompile(`^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$`).MatchString(trace) || strings.Contains(trace, spoofedTrace) {
		t.Errorf("the backend saw the traceparent %q, want one of our own", trace)
	}
	seen := maps.Clone(got.header)
	delete(seen, "traceparent")
	if strings.Join(seen["connection"], " | ") == "close" { // the gateway's own affair
		delete(seen, "connection")
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("the backend saw other headers (-want +got):\n%s", diff)
	}
	if strings.Contains(got.raw, "gk_") {
		t.Errorf("the backend saw a token:\n%s", got.raw)
	}
}

func orElse(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}
