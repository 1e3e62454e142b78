package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// demoBackend answers for the products of the example configuration with
// data that looks like theirs, and at every other path with what it was asked.
// It trusts the headers that the gateway sets, as a real product would.
type demoBackend struct {
	mux *http.ServeMux
	now func() time.Time

	mu         sync.Mutex
	whitelists map[string][]string   // addresses by subaccount and product
	subusers   map[string][]demoUser // by subaccount and product
	labels     map[string]string     // by subaccount
}

type demoUser struct {
	ID        int    `json:"id"`
	Username  string `json:"username"`
	TrafficGB int    `json:"traffic_limit_gb"`
	CreatedAt int64  `json:"created_at"`
}

func newDemoBackend(now func() time.Time) *demoBackend {
	b := &demoBackend{
		mux: http.NewServeMux(), now: now,
		whitelists: map[string][]string{}, subusers: map[string][]demoUser{}, labels: map[string]string{},
	}
	for _, product := range []string{"datacenter_shared", "datacenter_dedicated"} {
		b.mux.HandleFunc("GET /v4/account/{subaccount}/"+product+"/proxy-list", b.proxyList)
		b.mux.HandleFunc("GET /v4/account/{subaccount}/"+product+"/whitelist", b.whitelist)
	}
	for _, product := range []string{"residential", "residential_unlimited"} {
		b.mux.HandleFunc("GET /v4/account/{subaccount}/"+product+"/subusers", b.listSubusers)
		b.mux.HandleFunc("POST /v4/account/{subaccount}/"+product+"/subusers", b.addSubuser)
		b.mux.HandleFunc("DELETE /v4/account/{subaccount}/"+product+"/subusers/{subuser}", b.removeSubuser)
	}
	b.mux.HandleFunc("GET /v4/account/{subaccount}/details", b.details)
	b.mux.HandleFunc("PUT /v4/account/{subaccount}/details", b.rename)
	b.mux.HandleFunc("/serp/v1/", b.serp)
	b.mux.HandleFunc("/", echo)
	return b
}

// ServeHTTP answers one request.
func (b *demoBackend) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mux.ServeHTTP(w, r)
}

// shelf is where the data of a request's subaccount and product is kept.
func shelf(r *http.Request) string {
	product := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")[3]
	return r.Header.Get("X-Gatehouse-Subaccount") + "/" + product
}

func (b *demoBackend) proxyList(w http.ResponseWriter, _ *http.Request) {
	type proxy struct {
		IP      string `json:"ip"`
		Port    int    `json:"port"`
		Country string `json:"country"`
		City    string `json:"city"`
		Up      bool   `json:"up"`
	}
	places := [][2]string{{"DE", "Frankfurt"}, {"NL", "Amsterdam"}, {"FR", "Paris"}, {"US", "Ashburn"}, {"SG", "Singapore"}}
	proxies := make([]proxy, 0, len(places))
	for i, place := range places {
		proxies = append(proxies, proxy{IP: "192.0.2." + strconv.Itoa(10+i), Port: 8000 + i, Country: place[0], City: place[1], Up: true})
	}
	answerDemo(w, http.StatusOK, map[string]any{"success": true, "data": proxies, "total": len(proxies)})
}

// whitelist reads and changes by the query, as the documented API does.
func (b *demoBackend) whitelist(w http.ResponseWriter, r *http.Request) {
	at := shelf(r)
	query := r.URL.Query()
	var given []string
	if query.Get("type") != "get" {
		for s := range strings.SplitSeq(query.Get("ip"), ",") {
			ip, err := netip.ParseAddr(s)
			if err != nil {
				failDemo(w, http.StatusUnprocessableEntity, "ip must be one address, or several with commas between")
				return
			}
			given = append(given, ip.String())
		}
	}
	switch query.Get("type") {
	case "add":
		for _, ip := range given {
			if !slices.Contains(b.whitelists[at], ip) {
				b.whitelists[at] = append(b.whitelists[at], ip)
			}
		}
	case "set":
		b.whitelists[at] = given
	case "remove":
		b.whitelists[at] = slices.DeleteFunc(b.whitelists[at], func(ip string) bool { return slices.Contains(given, ip) })
	}
	answerDemo(w, http.StatusOK, map[string]any{"success": true, "data": append([]string{}, b.whitelists[at]...)})
}

func (b *demoBackend) listSubusers(w http.ResponseWriter, r *http.Request) {
	answerDemo(w, http.StatusOK, map[string]any{"success": true, "data": append([]demoUser{}, b.subusers[shelf(r)]...)})
}

func (b *demoBackend) addSubuser(w http.ResponseWriter, r *http.Request) {
	var asked demoUser
	if err := readDemo(r, &asked); err != nil || asked.Username == "" {
		failDemo(w, http.StatusUnprocessableEntity, "send JSON with a username")
		return
	}
	at := shelf(r)
	asked.ID, asked.CreatedAt = 1, b.now().Unix()
	for _, u := range b.subusers[at] {
		asked.ID = max(asked.ID, u.ID+1)
	}
	b.subusers[at] = append(b.subusers[at], asked)
	answerDemo(w, http.StatusCreated, map[string]any{"success": true, "data": asked})
}

func (b *demoBackend) removeSubuser(w http.ResponseWriter, r *http.Request) {
	at := shelf(r)
	before := len(b.subusers[at])
	b.subusers[at] = slices.DeleteFunc(b.subusers[at], func(u demoUser) bool { return strconv.Itoa(u.ID) == r.PathValue("subuser") })
	if len(b.subusers[at]) == before {
		failDemo(w, http.StatusNotFound, "there is no such subuser")
		return
	}
	answerDemo(w, http.StatusOK, map[string]any{"success": true})
}

func (b *demoBackend) details(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("subaccount")
	answerDemo(w, http.StatusOK, map[string]any{"success": true, "data": map[string]any{
		"id": id, "label": b.labels[id], "traffic_used_gb": 12.5, "traffic_limit_gb": 100, "account": r.Header.Get("X-Gatehouse-Account"),
	}})
}

func (b *demoBackend) rename(w http.ResponseWriter, r *http.Request) {
	var asked struct {
		Label string `json:"label"`
	}
	if err := readDemo(r, &asked); err != nil {
		failDemo(w, http.StatusUnprocessableEntity, "send JSON with a label")
		return
	}
	b.labels[r.PathValue("subaccount")] = asked.Label
	b.details(w, r)
}

func (b *demoBackend) serp(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query().Get("q")
	if r.Method != http.MethodGet {
		answerDemo(w, http.StatusAccepted, map[string]any{"success": true, "data": map[string]any{"job": "job-1", "state": "queued"}})
		return
	}
	results := []map[string]any{}
	for i := range 3 {
		results = append(results, map[string]any{
			"position": i + 1, "title": fmt.Sprintf("Result %d for %s", i+1, q), "url": fmt.Sprintf("https://example.com/%d", i+1),
		})
	}
	answerDemo(w, http.StatusOK, map[string]any{"success": true, "data": map[string]any{"query": q, "results": results}})
}

// echo answers what it was asked, so that one sees what a backend gets.
func echo(w http.ResponseWriter, r *http.Request) {
	headers := map[string]string{"Host": r.Host}
	for name, values := range r.Header {
		headers[name] = strings.Join(values, ", ")
	}
	text, err := json.MarshalIndent(map[string]any{"method": r.Method, "url": r.RequestURI, "headers": headers}, "", "  ")
	if err != nil {
		failDemo(w, http.StatusInternalServerError, "the request cannot be shown")
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(text, '\n')) // the gateway has gone
}

func readDemo(r *http.Request, into any) error {
	const limit = 1 << 20
	raw, err := io.ReadAll(io.LimitReader(r.Body, limit))
	return errors.Join(err, json.Unmarshal(raw, into))
}

func answerDemo(w http.ResponseWriter, status int, v any) {
	raw, err := json.Marshal(v)
	if err != nil {
		status, raw = http.StatusInternalServerError, nil
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(raw) // the gateway has gone
}

func failDemo(w http.ResponseWriter, status int, detail string) {
	answerDemo(w, status, map[string]any{"success": false, "error": detail})
}
