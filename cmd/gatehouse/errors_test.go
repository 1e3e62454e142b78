package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"gatehouse/proxy/problem"
)

const errorsPage = "docs/errors.md"

// errorSection is what the errors reference says of a code.
type errorSection struct {
	status, title, grpc string
	client, operator    bool // it says what they do
	example             string
}

var (
	sectionHead = regexp.MustCompile("(?m)^### `([a-z_]+)`$")
	sectionFact = regexp.MustCompile(`(?m)^\*\*(\d{3}) ([A-Za-z ]+)\*\* · gRPC ([A-Z_]+)$`)
)

// errorSections are those of docs/errors.md, by code, and what stands before them.
func errorSections(t *testing.T) (sections map[problem.Code]errorSection, before string) {
	t.Helper()
	text, err := os.ReadFile("../../" + errorsPage)
	if err != nil {
		t.Fatal(err)
	}
	heads := sectionHead.FindAllStringSubmatchIndex(string(text), -1)
	if len(heads) == 0 {
		t.Fatalf("%s has no sections", errorsPage)
	}
	sections = make(map[problem.Code]errorSection)
	for i, head := range heads {
		end := len(text)
		if i+1 < len(heads) {
			end = heads[i+1][0]
		}
		code, body := problem.Code(text[head[2]:head[3]]), string(text[head[1]:end])
		if _, twice := sections[code]; twice {
			t.Errorf("%s has two sections", code)
		}
		facts := sectionFact.FindStringSubmatch(body)
		if facts == nil {
			t.Errorf("%s does not say its status", code)
			continue
		}
		s := errorSection{
			status: facts[1], title: facts[2], grpc: facts[3],
			client: strings.Contains(body, "\n**Clients**: "), operator: strings.Contains(body, "\n**Operators**: "),
		}
		for _, block := range fenced.FindAllStringSubmatch(body, -1) {
			if block[2] == "http" {
				s.example += block[3]
			}
		}
		sections[code] = s
	}
	return sections, string(text[:heads[0][0]])
}

// grpcNames are the statuses that refused calls can have.
var grpcNames = map[string]string{
	"3": "INVALID_ARGUMENT", "4": "DEADLINE_EXCEEDED", "7": "PERMISSION_DENIED", "8": "RESOURCE_EXHAUSTED", "10": "ABORTED",
	"12": "UNIMPLEMENTED", "13": "INTERNAL", "14": "UNAVAILABLE", "16": "UNAUTHENTICATED",
}

// TestErrorsReferenceIsWhole: each code has exactly one section, with its status,
// and there is none for a code that does not exist.
func TestErrorsReferenceIsWhole(t *testing.T) {
	t.Parallel()
	sections, table := errorSections(t)
	for _, code := range problem.Codes() {
		grpc, _ := problem.GRPC(problem.New(code, ""))
		want := errorSection{
			status: fmt.Sprint(code.Status()), title: http.StatusText(code.Status()), grpc: grpcNames[grpc],
			client: true, operator: true, example: sections[code].example,
		}
		if diff := cmp.Diff(want, sections[code], cmp.AllowUnexported(errorSection{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", code, diff)
		}
		delete(sections, code)
		if row := fmt.Sprintf("\n| [`%s`](#%s) | %d | ", code, code, code.Status()); strings.Count(table, row) != 1 {
			t.Errorf("the table has no row, or several, that begin with %q", row)
		}
	}
	if rows := strings.Count(table, "\n| [`"); rows != len(problem.Codes()) {
		t.Errorf("the table has %d rows, and there are %d codes", rows, len(problem.Codes()))
	}
	for code := range sections {
		t.Errorf("%s has a section, and does not exist", code)
	}
}

// TestExamplesOfTheErrorsReferenceAreReal: each is what a gateway answers, header
// by header and word by word, but for its request id and seconds to wait.
func TestExamplesOfTheErrorsReferenceAreReal(t *testing.T) {
	t.Parallel()
	sections, _ := errorSections(t)
	real := realErrors(t)
	for _, code := range problem.Codes() {
		got, is := real[code]
		if !is {
			t.Errorf("no request was answered %s", code)
			continue
		}
		if diff := cmp.Diff(plainExample(sections[code].example), plainExample(asExample(sections[code].example, got))); diff != "" {
			t.Errorf("%s: %s shows (-), and the gateway answers (+)\n%s", code, errorsPage, diff)
		}
	}
}

// shownHeaders are those that an example must show where an answer has them.
var shownHeaders = []string{"Allow", "RateLimit", "RateLimit-Policy", "Retry-After", "WWW-Authenticate"}

var seconds = regexp.MustCompile(`(?m)^(Retry-After: |RateLimit: .*t=)\d+$`)

// plainExample has the body of an example without its line breaks.
func plainExample(example string) string {
	head, body, _ := strings.Cut(strings.TrimSpace(example), "\n\n")
	var document map[string]any
	if err := json.Unmarshal([]byte(body), &document); err != nil {
		return fmt.Sprintf("%s\n\n%s\n%v", head, body, err)
	}
	text, err := json.MarshalIndent(document, "", " ") // sorts
	return fmt.Sprintf("%s\n\n%s\n%v", head, text, err)
}

// asExample writes an answer as the examples are written, with the request id and
// the seconds of the example.
func asExample(example string, a answer) string {
	lines := []string{fmt.Sprintf("%s %d %s", a.proto, a.status, http.StatusText(a.status))}
	for _, name := range shownHeaders {
		for _, value := range a.header.Values(name) {
			lines = append(lines, name+": "+value)
		}
	}
	text := strings.Join(append(lines, "Content-Type: "+a.header.Get("Content-Type"), ""), "\n")
	wait := seconds.FindAllString(example, -1)
	for _, line := range seconds.FindAllString(text, -1) {
		prefix := strings.TrimRight(line, "0123456789")
		if i := slices.IndexFunc(wait, func(shown string) bool { return strings.HasPrefix(shown, prefix) }); i >= 0 {
			text = strings.Replace(text, line, wait[i], 1)
		}
	}
	var document, shown struct {
		RequestID string `json:"request_id"`
	}
	_, body, _ := strings.Cut(example, "\n\n")
	_ = json.Unmarshal([]byte(body), &shown) // what is wrong shows in the comparison
	if err := json.Unmarshal([]byte(a.body), &document); err != nil {
		return err.Error()
	}
	return text + "\n" + strings.Replace(a.body, document.RequestID, shown.RequestID, 1)
}

// realErrors are answers of each code, of gateways that run. What no request can
// bring about is an answer that the tests of package proxy have recorded.
func realErrors(t *testing.T) map[problem.Code]answer {
	held, begun, release := slowBackend(t)
	hanging, _, _ := slowBackend(t) // until the test ends
	d := newTable(t, settings{
		Store: embeddedStore(t), Serp: "{rate: 0.01, burst: 1}", Delegation: "{max_keys_per_account: 30}",
		Others:    map[string]string{"dead": closedPort(t), "hanging": hanging.addr},
		Upstreams: fmt.Sprintf(`  full: {targets: ["http://%s"], max_in_flight: 1}`, held.addr),
		Routes:    "  - {match: GET /full/, permission: serp_api:read, upstream: full}",
	})
	all := make(map[problem.Code]answer)
	keep := func(code problem.Code, r request) { all[code] = d.send(t, r) }
	d.decisionErrors(t, keep)
	d.keyErrors(t, keep)
	d.messageErrors(keep)
	keep(problem.UpstreamUnreachable, get(d.root, "/dead/"))
	keep(problem.UpstreamTimeout, get(d.root, "/hanging/"))
	first := d.inFlight(t, get(d.root, "/full/"), begun)
	keep(problem.UpstreamOverloaded, get(d.root, "/full/"))
	release()
	if ended := <-first; ended.err != nil {
		t.Error(ended.err)
	}
	lost := launchGateway(t, settings{Store: fmt.Sprintf(`redis: {addrs: [%q]}`, closedPort(t))})
	all[problem.KeyStoreUnavailable] = lost.send(t, get(d.key, proxyListOfA))
	all[problem.InternalError] = recordedAnswer(t, "internal_error")
	return all
}

// decisionErrors are the refusals of the decision.
func (d *table) decisionErrors(t *testing.T, keep func(code problem.Code, r request)) {
	limited := func(change func(k *newKey)) key {
		k := may("datacenter_shared:read")
		change(&k)
		return d.createKey(t, d.root, k)
	}
	disabled, bound, ofB := limited(func(*newKey) {}), limited(func(k *newKey) { k.IPs = []string{"203.0.113.0/24"} }), limited(func(k *newKey) { k.Subaccounts = []string{subB} })
	expired := d.expiring(t, func(k newKey) answer { return d.send(t, creation(d.root, string(encode(t, k)))) }, may("datacenter_shared:read"))
	d.passes(t, manage(d.root, http.MethodPut, keyTarget(disabled.ID), `{"is_active": false}`))
	d.putAccount(t, "asleep", account{Name: "Asleep", Permissions: []string{"*"}})
	asleep := d.firstKey(t, "asleep", may("serp_api:read"))
	d.putAccount(t, "asleep", account{Name: "Asleep", Permissions: []string{"*"}, Status: "suspended"})

	nobody := request{method: http.MethodGet, target: proxyListOfA, host: "api.example.com"}
	keep(problem.AmbiguousPath, get(d.key, "/v4/account/"+subA+"/../"+subB+"/datacenter_shared/proxy-list"))
	keep(problem.UnknownRoute, get(d.key, "/nowhere"))
	keep(problem.MethodNotAllowed, get(d.key, proxyListOfA).at(http.MethodPost, proxyListOfA))
	keep(problem.AmbiguousQuery, get(d.key, whitelistOfA+"?type=get&type=add"))
	keep(problem.MissingCredentials, nobody)
	keep(problem.AmbiguousCredentials, get(d.key, proxyListOfA).with("Authorization: Bearer "+d.root.Token))
	keep(problem.InvalidToken, nobody.by("gk_wrong"))
	keep(problem.KeyDisabled, get(disabled, proxyListOfA))
	keep(problem.AccountSuspended, get(asleep, "/serp/v1/search"))
	keep(problem.IPNotAllowed, get(bound, proxyListOfA))
	keep(problem.SubaccountNotAllowed, get(ofB, proxyListOfA))
	keep(problem.PermissionDenied, get(d.key, whitelistOfA+"?type=add&ip=192.0.2.1"))
	d.passes(t, get(d.root, "/serp/v1/search"))
	keep(problem.RateLimited, get(d.root, "/serp/v1/search"))
	eventually(t, patience, "a key expires", func() error {
		return unless(d.send(t, get(expired, proxyListOfA)).status == http.StatusUnauthorized, "it works")
	})
	keep(problem.KeyExpired, get(expired, proxyListOfA))
}

// keyErrors are those of the key API.
func (d *table) keyErrors(t *testing.T, keep func(code problem.Code, r request)) {
	body := func(k newKey) string { return string(encode(t, k)) }
	weak := may("account:apikeys:create", "account:apikeys:read", "account:apikeys:update", "datacenter_shared:read")
	weak.Subaccounts = []string{subA}
	manager := d.createKey(t, d.root, weak)
	forB := may("datacenter_shared:read")
	forB.Subaccounts = []string{subB}
	badAddress := may("datacenter_shared:read")
	badAddress.IPs = []string{"203.0.113.0/24", "office"}
	keep(problem.PermissionNotGrantable, creation(manager, body(may("datacenter_shared:read", "serp_api:read"))))
	keep(problem.SubaccountNotGrantable, creation(manager, body(forB)))
	keep(problem.ExceedsYourAccess, manage(manager, http.MethodPut, keyTarget(d.root.ID), `{"name": "mine"}`))
	keep(problem.KeyInUse, manage(manager, http.MethodPut, keyTarget(manager.ID), `{"name": "mine"}`))
	keep(problem.NotFound, manage(d.root, http.MethodGet, keyTarget("11111111-2222-4333-8444-555555555555"), ""))
	keep(problem.ValidationFailed, creation(d.root, body(badAddress)))
	keep(problem.UnsupportedMediaType, creation(d.root, body(badAddress)).without("Content-Type").with("Content-Type: text/plain"))

	old := d.createKey(t, d.root, may("datacenter_shared:read"))
	manages[regenerated](t, d.gateway, manage(d.root, http.MethodPost, keyTarget(old.ID)+"/regenerate", `{"grace_period_seconds": 3600}`))
	keep(problem.Conflict, manage(d.root, http.MethodPut, keyTarget(old.ID), `{"name": "mine"}`))
	eventually(t, patience, "the account is full", func() error {
		r := creation(d.root, body(may("datacenter_shared:read")))
		keep(problem.KeyLimitReached, r)
		return unless(d.send(t, r).status == http.StatusConflict, "there is room")
	})
	keep(problem.KeyLimitReached, creation(d.root, body(may("datacenter_shared:read"))))
}

// messageErrors are those of what a request is, whosever it is.
func (d *table) messageErrors(keep func(code problem.Code, r request)) {
	upload := get(d.root, subusersOfA).at(http.MethodPost, subusersOfA)
	large := upload
	large.body = strings.Repeat("x", maxBody+1)
	keep(problem.BodyTooLarge, large)
	keep(problem.RequestTimeout, upload.with("Content-Length: 10")) // and then nothing
	keep(problem.MethodNotImplemented, get(d.key, proxyListOfA).at("BREW", proxyListOfA))
	keep(problem.HeaderTooLarge, get(d.key, proxyListOfA).with("X-Large: "+strings.Repeat("x", 40<<10)))
	keep(problem.InvalidRequest, get(d.key, proxyListOfA).with("Content-Length: 1", "Transfer-Encoding: chunked"))
}

// recordedAnswer is one that package proxy has recorded.
func recordedAnswer(t *testing.T, name string) answer {
	t.Helper()
	text, err := os.ReadFile("../../proxy/testdata/refusals/" + name + ".golden")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "-- answer --\n")
	raw, _, is := strings.Cut(rest, "\n-- record --")
	if !is {
		t.Fatalf("%s has no answer", name)
	}
	raw = strings.Replace(raw, "\n{…}\n", "\n", 1) // where the date was
	response, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }() // it is a text
	_, body, _ := strings.Cut(raw, "\n\n")
	return answer{proto: response.Proto, status: response.StatusCode, header: response.Header, body: body}
}
