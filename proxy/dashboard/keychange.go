package dashboard

import (
	"errors"
	"net/url"
	"strings"
	"time"
	"unicode"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// changePage asks whether a key is to be disabled, regenerated or revoked, and
// says what stops working then.
type changePage struct {
	Key    keyView
	Grants []resourceView
	// Usable: requests with the key are let through at this moment.
	Usable, Expired, Superseded bool
	// Recent: it was used within a day.
	Recent bool
	// Requests are those of the last 24 hours; nil for who may not see usage.
	Requests *usageTotals
	// Word is what has to be typed: the name, where it can be.
	Word, Typed string
	Grace       graceForm
	Wrong       changeFaults
	// Back is the query of the list that this was asked on, and List its address.
	Back, List string
}

// changeFaults say what is wrong with a field; "" for nothing.
type changeFaults struct{ Name, Grace string }

// changedKey finds the key that a form or its question is about. Both show and
// tell of the key, and so need to read it, too.
func (d *Dashboard) changedKey(v *visit) (policy.Key, error) {
	if !v.caller.Permissions().Has(policy.ReadKeys) {
		return policy.Key{}, lacking(policy.ReadKeys)
	}
	id := v.r.PathValue("id")
	if !contract.IsKeyID(id) {
		return policy.Key{}, noSuchKey(keystore.ErrNotFound)
	}
	k, err := d.o.Store.Get(v.r.Context(), v.caller, policy.KeyID(id))
	return k, noSuchKey(err)
}

// noSuchKey says what may have become of a key that is not there. It says the
// same of one that never was, or is another account's.
func noSuchKey(err error) error {
	if !errors.Is(err, keystore.ErrNotFound) {
		return err
	}
	return &problem.Problem{
		Code: problem.NotFound, Cause: err,
		Detail: "There is no such key in this account. It may have been revoked or regenerated a moment ago; its token does not work then.",
	}
}

// question is the page that asks about the key.
func (d *Dashboard) question(v *visit, k policy.Key, back url.Values) (changePage, error) {
	now := d.o.Now()
	list, _ := d.readKeyQuery(back)
	p := changePage{
		Key: d.viewKey(k, v.account), Usable: works(k, now), Expired: k.Expiry.Passed(now), Superseded: k.Replaced(),
		Recent: now.Sub(k.LastUsedAt) < 24*time.Hour, Word: confirmation(k), Grace: graceForm{Choice: "0"},
		Back: list.Encode(), List: list.Path(),
	}
	p.Grants = p.Key.Permissions
	if !v.caller.Permissions().Has(policy.ReadUsage) {
		return p, nil
	}
	u, err := d.usageIn(v, k.ID, usageSpans()[0])
	p.Requests = &u.totals
	return p, err
}

// backOf is the query of the list that the page was asked on.
func backOf(values url.Values) url.Values {
	back, err := url.ParseQuery(values.Get("back"))
	if err != nil {
		return nil // the whole list, then
	}
	return back
}

// confirmation is what must be typed to have something done to the key: its
// name, or its id where the name has nothing to be seen.
func confirmation(k policy.Key) string {
	if name := typed(k.Name); name != "" {
		return name
	}
	return string(k.ID)
}

// typed is what somebody can type of a text: characters that are not seen are
// left out, and spaces, which pages show as one, are one.
func typed(s string) string {
	visible := strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) {
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(visible), " ")
}

// confirmed reports whether the form has the word, and notes where it has not.
func (p *changePage) confirmed(form url.Values) bool {
	p.Typed = firstCharacters(strings.ToValidUTF8(form.Get("name"), ""), maxSearch)
	if typed(form.Get("name")) == p.Word {
		return true
	}
	p.Wrong.Name = "This is not the name of the key. Letter case counts."
	if p.Word == string(p.Key.ID) {
		p.Wrong.Name = "This is not the id of the key."
	}
	return false
}

// askAgain shows the form again, with what was typed and what is wrong with it.
func (d *Dashboard) askAgain(v *visit, name, title string, p changePage) error {
	var fields []problem.FieldError
	for _, f := range []problem.FieldError{{Field: "grace", Detail: p.Wrong.Grace}, {Field: "name", Detail: p.Wrong.Name}} {
		if f.Detail != "" {
			fields = append(fields, f)
		}
	}
	invalid := problem.Invalid(fields...)
	v.refuse(invalid)
	return d.show(v, page{name: name, title: title, current: keysPath, status: invalid.Code.Status(), content: p})
}
