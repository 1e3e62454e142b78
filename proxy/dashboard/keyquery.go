package dashboard

import (
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"gatehouse/policy"
)

// keyQuery says which keys are listed, and how. It is in the address of the
// page; what makes no sense there is as if it was left out.
type keyQuery struct {
	Search  string
	State   string // the value of a keyFilter
	Product string // the resource of permissions
	Sort    string // the value of a keyOrder
	Page    int    // from 1
}

const (
	// maxSearch bounds what is searched for, in characters. It is the length of a name.
	maxSearch = 100
	// maxPageNumber bounds the number of a page, which nobody counts further.
	maxPageNumber = maxKeysRead
)

// accountResource is the choice of keys that manage the account itself.
const accountResource = "account"

// readKeyQuery reads the query of an address. It reports whether a token was
// searched for, which is then not in the query.
func (d *Dashboard) readKeyQuery(values url.Values) (q keyQuery, secret bool) {
	search := strings.Join(strings.Fields(strings.ToValidUTF8(values.Get("q"), "")), " ")
	secret = holdsToken(search)
	if !secret {
		q.Search = firstCharacters(search, maxSearch)
	}
	q.State = known(keyFilters(), values.Get("state"))
	q.Sort = known(keyOrders(), values.Get("sort"))
	for _, o := range d.productOptions("") {
		if o.Value == values.Get("product") {
			q.Product = o.Value
		}
	}
	number, _ := strconv.Atoi(values.Get("page")) // what is no number is the first page
	q.Page = min(max(number, 1), maxPageNumber)
	return q, secret
}

// choice is one that has a value in the address.
type choice interface{ value() string }

// known is the value where it is one of the list's, and "" otherwise.
func known[T choice](list []T, value string) string {
	if slices.ContainsFunc(list, func(n T) bool { return n.value() == value }) {
		return value
	}
	return ""
}

func firstCharacters(s string, n int) string {
	runes := []rune(s)
	return string(runes[:min(len(runes), n)])
}

// Encode writes the query as readKeyQuery reads it, without what is usual.
func (q keyQuery) Encode() string {
	values := url.Values{}
	for name, value := range map[string]string{"q": q.Search, "state": q.State, "product": q.Product, "sort": q.Sort} {
		if value != "" {
			values.Set(name, value)
		}
	}
	if q.Page > 1 {
		values.Set("page", strconv.Itoa(q.Page))
	}
	return values.Encode()
}

// Path is the address of the list.
func (q keyQuery) Path() string {
	if encoded := q.Encode(); encoded != "" {
		return keysPath + "?" + encoded
	}
	return keysPath
}

// with is the address of the list, with a notice on it.
func (q keyQuery) with(notice string) string {
	encoded := url.Values{"notice": {notice}}.Encode()
	if q := q.Encode(); q != "" {
		encoded = q + "&" + encoded
	}
	return keysPath + "?" + encoded
}

// Turned is the address of another page of the same list.
func (q keyQuery) Turned(pages int) string { q.Page += pages; return q.Path() }

// Narrowed is the address of the list of the keys that a hint is about.
func (q keyQuery) Narrowed(state string) string { return keyQuery{State: state, Sort: q.Sort}.Path() }

// Filtered reports whether keys are left out.
func (q keyQuery) Filtered() bool { return q.Search != "" || q.State != "" || q.Product != "" }

// find returns those of the keys that are wanted, in the order that is wanted.
// The keys come newest first.
func (q keyQuery) find(keys []policy.Key, now time.Time) []policy.Key {
	filters, orders := keyFilters(), keyOrders()
	filter := filters[slices.IndexFunc(filters, func(f keyFilter) bool { return f.value() == q.State })]
	order := orders[slices.IndexFunc(orders, func(o keyOrder) bool { return o.value() == q.Sort })]
	needle := strings.ToLower(q.Search)
	var found []policy.Key
	for _, k := range keys {
		if filter.wants(k, now) && q.wantsProduct(k) && contains(k, needle) {
			found = append(found, k)
		}
	}
	order.arrange(found)
	return found
}

func (q keyQuery) wantsProduct(k policy.Key) bool {
	return q.Product == "" || slices.ContainsFunc(k.Permissions, func(p policy.Permission) bool {
		resource := p.Resource()
		return resource == q.Product || q.Product == accountResource && strings.HasPrefix(resource, accountResource+":")
	})
}

// contains reports whether what people know of a key has the words in it:
// its name, its preview or its id.
func contains(k policy.Key, needle string) bool {
	if needle == "" {
		return true
	}
	for _, text := range []string{k.Name, k.Preview, string(k.ID)} {
		if strings.Contains(strings.ToLower(text), needle) {
			return true
		}
	}
	return false
}

// keyFilter is a choice of keys by what they are.
type keyFilter struct {
	id, label string
	wants     func(k policy.Key, now time.Time) bool
}

func (f keyFilter) value() string { return f.id }

// keyFilters are all choices; the first one is the usual one.
func keyFilters() []keyFilter {
	in := func(states ...keyState) func(policy.Key, time.Time) bool {
		return func(k policy.Key, now time.Time) bool { return slices.Contains(states, stateOf(k, now)) }
	}
	return []keyFilter{
		{"", "Any state", func(policy.Key, time.Time) bool { return true }},
		{"active", "Active", in(stateActive, stateSoon)},
		{"soon", "Expires soon", in(stateSoon)},
		{"disabled", "Disabled", in(stateDisabled)},
		{"expired", "Expired", in(stateExpired)},
		{"replaced", "Replaced", in(stateReplaced)},
		{"unused", "Not used in 90 days", unused},
		{"forever", "Never expires", forever},
	}
}

// keyOrder is an order of keys. arrange is given them as the store has them,
// the newest first.
type keyOrder struct {
	id, label string
	arrange   func(keys []policy.Key)
}

func (o keyOrder) value() string { return o.id }

// keyOrders are all orders; the first one is the usual one.
func keyOrders() []keyOrder {
	by := func(compare func(a, b policy.Key) int) func([]policy.Key) {
		return func(keys []policy.Key) { slices.SortStableFunc(keys, compare) }
	}
	name := func(a, b policy.Key) int { return cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)) }
	used := func(a, b policy.Key) int { return a.LastUsedAt.Compare(b.LastUsedAt) }
	return []keyOrder{
		{"", "Newest first", func([]policy.Key) {}},
		{"created", "Oldest first", slices.Reverse[[]policy.Key]},
		{"name", "Name, A to Z", by(name)},
		{"-name", "Name, Z to A", by(func(a, b policy.Key) int { return name(b, a) })},
		{"-used", "Last used first", by(func(a, b policy.Key) int { return used(b, a) })},
		{"used", "Longest unused first", by(used)},
		{"expires", "First to expire", by(func(a, b policy.Key) int { return compareExpiry(a.Expiry, b.Expiry) })},
	}
}

func compareExpiry(a, b policy.Expiry) int {
	switch {
	case b.Outlasts(a):
		return -1
	case a.Outlasts(b):
		return 1
	}
	return 0
}

// sortHead is the head of a column that sorts the list.
type sortHead struct {
	Label, Path string
	Direction   string // of aria-sort; "" for a list that is sorted by something else
}

// Head is the head of a column. Following it sorts by first, and by then where
// the list is sorted by first already.
func (q keyQuery) Head(label, first, then string) sortHead {
	head := sortHead{Label: label}
	if q.Sort == first || q.Sort == then {
		head.Direction = "ascending"
		if q.Sort == "" || strings.HasPrefix(q.Sort, "-") {
			head.Direction = "descending"
		}
	}
	if q.Sort == first {
		first = then
	}
	q.Sort, q.Page = first, 1
	head.Path = q.Path()
	return head
}

// states are the choices of what keys are, for a form.
func (q keyQuery) states() []listOption {
	var list []listOption
	for _, f := range keyFilters() {
		list = append(list, listOption{f.id, f.label, f.id == q.State})
	}
	return list
}

// sorts are the orders, for a form.
func (q keyQuery) sorts() []listOption {
	var list []listOption
	for _, o := range keyOrders() {
		list = append(list, listOption{o.id, o.label, o.id == q.Sort})
	}
	return list
}

// productOptions are what keys can be for, for a form.
func (d *Dashboard) productOptions(chosen string) []listOption {
	list := []listOption{{"", "Any product", chosen == ""}}
	for _, r := range d.resources(true) {
		resource := policy.Permission(r.Actions[0]).Resource()
		list = append(list, listOption{resource, r.Name, resource == chosen})
	}
	return append(list, listOption{accountResource, "Account management", chosen == accountResource})
}
