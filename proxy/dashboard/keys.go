package dashboard

import (
	"gatehouse/keystore"
	"gatehouse/policy"
)

// keyRoutes are the list of keys and what its menus do.
func (d *Dashboard) keyRoutes() []*route {
	const key = keysPath + "/{id}"
	return []*route{
		{pattern: "GET " + keysPath, needs: policy.ReadKeys, answer: d.showKeys},
		{pattern: "GET " + key + "/disable", needs: policy.UpdateKeys, answer: d.askDisable},
		{pattern: "POST " + key + "/disable", needs: policy.UpdateKeys, action: keystore.KeyUpdate, answer: d.disableKey},
		{pattern: "POST " + key + "/enable", needs: policy.UpdateKeys, action: keystore.KeyUpdate, answer: d.enableKey},
		{pattern: "GET " + key + "/regenerate", needs: policy.RegenerateKeys, answer: d.askRegenerate},
		{pattern: "POST " + key + "/regenerate", needs: policy.RegenerateKeys, action: keystore.KeyRegenerate, answer: d.regenerateKey},
		{pattern: "GET " + key + "/revoke", needs: policy.DeleteKeys, answer: d.askRevoke},
		{pattern: "POST " + key + "/revoke", needs: policy.DeleteKeys, action: keystore.KeyRevoke, answer: d.revokeKey},
	}
}

const (
	// keysOnPage is how many keys one page shows.
	keysOnPage = 25
	// listPortion is how many keys are read at a time, maxKeysRead how many at
	// the most: an account has no more.
	listPortion = 1000
	maxKeysRead = 10_000
)

// keysPage is the list of keys as it is shown.
type keysPage struct {
	Query keyQuery
	// Total is how many keys the account has, Found how many of them the query
	// finds. First and Last are the numbers of those on this page, from 1.
	Total, Found, First, Last int
	Rows                      []keyRow
	Number, Pages             int
	// Unused and Forever are how many keys there is a hint about.
	Unused, Forever int
	// Cut: the account has more keys than are read.
	Cut                      bool
	States, Products, Sorted []listOption
}

// listOption is one choice of a select element.
type listOption struct {
	Value, Label string
	Selected     bool
}

// showKeys lists the keys of the account.
func (d *Dashboard) showKeys(v *visit) error {
	query, secret := d.readKeyQuery(v.r.URL.Query())
	if secret { // and does not stay in the browser's address bar
		return v.redirect(query.with("token_searched"))
	}
	keys, cut, err := d.readKeys(v)
	if err != nil {
		return err
	}
	p := keysPage{Query: query, Total: len(keys), Cut: cut}
	now := d.o.Now()
	for _, k := range keys {
		if unused(k, now) {
			p.Unused++
		}
		if forever(k, now) {
			p.Forever++
		}
	}
	found := query.find(keys, now)
	p.turnTo(len(found))
	for _, k := range found[max(p.First-1, 0):p.Last] {
		p.Rows = append(p.Rows, d.rowOf(k, v, p.Query))
	}
	p.States, p.Products, p.Sorted = query.states(), d.productOptions(query.Product), query.sorts()
	return d.show(v, page{name: "keys", title: "API Keys", current: keysPath, content: p})
}

// turnTo finds out which of the found keys are on the page that is asked for:
// the last one, where there are not as many.
func (p *keysPage) turnTo(found int) {
	p.Found, p.Pages = found, max(1, (found+keysOnPage-1)/keysOnPage)
	p.Number = min(p.Query.Page, p.Pages)
	p.Query.Page = p.Number
	p.First = min((p.Number-1)*keysOnPage+1, found)
	p.Last = min(p.Number*keysOnPage, found)
}

// readKeys reads the keys of the account, the newest first. It reports whether
// there are more of them than it reads.
func (d *Dashboard) readKeys(v *visit) (keys []policy.Key, cut bool, err error) {
	for cursor := ""; len(keys) < maxKeysRead; {
		part, next, err := d.o.Store.List(v.r.Context(), v.caller, cursor, listPortion)
		if err != nil {
			return nil, false, err
		}
		keys = append(keys, part...)
		if next == "" {
			return keys, false, nil
		}
		cursor = next
	}
	return keys, true, nil
}
