package dashboard

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

const (
	newKeyPath         = keysPath + "/new"
	checkAddressesPath = keysPath + "/check-addresses"
	// keyFormLimit bounds the body of a key's form, which may name a thousand
	// subaccounts.
	keyFormLimit = 256 << 10
)

// formRoutes are the forms that create and change keys.
func (d *Dashboard) formRoutes() []*route {
	const edit = keysPath + "/{id}/edit"
	return []*route{
		{pattern: "GET " + newKeyPath, needs: policy.CreateKeys, answer: d.showNewKey},
		{pattern: "POST " + newKeyPath, needs: policy.CreateKeys, action: keystore.KeyCreate, limit: keyFormLimit, answer: d.createKey},
		{pattern: "GET " + edit, needs: policy.UpdateKeys, answer: d.showEditKey},
		{pattern: "POST " + edit, needs: policy.UpdateKeys, action: keystore.KeyUpdate, limit: keyFormLimit, answer: d.editKey},
		{pattern: "POST " + checkAddressesPath, answer: d.answerAddresses},
	}
}

// showNewKey shows the form of a key that is to be made: one that does not
// expire, unless the toggle is set.
func (d *Dashboard) showNewKey(v *visit) error {
	typed := keyFields{}
	typed.expireAt(d.quickExpiries()[1].At)
	typed.Expires = false
	return d.newKeyForm(v, http.StatusOK, keyFormPage{FormID: rand.Text(), Typed: typed})
}

func (d *Dashboard) newKeyForm(v *visit, status int, p keyFormPage) error {
	p.Path, p.Back = newKeyPath, keysPath
	d.complete(v, &p, nil)
	return d.show(v, page{name: "key-form", title: p.titled("Create API Key"), current: keysPath, scripts: []string{"keyform.js"}, status: status, content: p})
}

// createKey makes the key, once for each form that was shown: a form that is
// sent twice, or a reload of the page with the token, makes no second one.
func (d *Dashboard) createKey(v *visit) error {
	form, err := v.keyForm()
	if err != nil {
		return err
	}
	p := keyFormPage{FormID: form.Get("form_id"), Typed: readKeyFields(form)}
	if do := form.Get("do"); do != "" {
		d.apply(v, do, &p.Typed, nil)
		return d.newKeyForm(v, http.StatusOK, p)
	}
	asked, err := p.Typed.newKey(v.caller.Account, d.o.Catalogue, d.o.Now())
	if err != nil {
		return d.newKeyRefused(v, p, err)
	}
	once := v.onceName(p.FormID)
	first, err := d.o.Store.Once(v.r.Context(), once)
	if err == nil && !first {
		return d.alreadySent(v)
	}
	p.FormID = rand.Text() // the old one is used up, whatever comes of it
	if err != nil {
		return d.newKeyRefused(v, p, err)
	}
	key, token, err := d.o.Store.Create(v.r.Context(), v.caller, asked)
	if err != nil {
		if problem.From(err).Code.Status() < http.StatusInternalServerError { // certainly not created: Back and once more is fine
			_ = d.o.Store.Forget(v.r.Context(), once) // else the form is used up, which the page does not take for a key
		}
		return d.newKeyRefused(v, p, perhapsDone(err, "the key may or may not have been created. Look at the list of keys before you try again."))
	}
	return d.showToken(v, key, token, false)
}

// perhapsDone: an answer of the store that was lost says nothing of what it
// did. The sentence says what that may be, and what to do. A store that accepts
// no changes has not made this one.
func perhapsDone(err error, sentence string) error {
	lost := errors.Is(err, keystore.ErrUnavailable) || errors.Is(err, keystore.ErrUncertain)
	if !lost || errors.Is(err, keystore.ErrReadOnly) || errors.Is(err, keystore.ErrOlder) {
		return err
	}
	p := problem.StoreUnavailable(err)
	p.Detail = "The key store did not answer in time, and " + sentence
	return p
}

func (d *Dashboard) newKeyRefused(v *visit, p keyFormPage, err error) error {
	if lasting(err) {
		return err
	}
	status := d.noteRefusal(v, keystore.KeyCreate, "", err)
	p.Errors = faultsOf(err)
	return d.newKeyForm(v, status, p)
}

// alreadySent answers a form that was used up, whatever came of it.
func (d *Dashboard) alreadySent(v *visit) error {
	v.refuse(problem.New(problem.Conflict, "This form was sent before."))
	return d.show(v, page{name: "key-sent", title: "Already sent", current: keysPath, status: http.StatusConflict})
}

// noteRefusal tells the record and the audit trail why a form is shown again,
// and returns the status to show it with.
func (d *Dashboard) noteRefusal(v *visit, action keystore.Action, id policy.KeyID, err error) int {
	p := problem.From(err)
	v.refuse(p)
	d.o.Store.Refused(v.r.Context(), v.caller, action, id, string(p.Code))
	if p.RetryAfter > 0 {
		v.w.Header().Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
	}
	return p.Code.Status()
}

// keyForm reads a form of a key. One in which a field is missing that browsers
// always send is refused: a missing list of addresses would open the key.
func (v *visit) keyForm() (url.Values, error) {
	form, err := v.form()
	if err != nil {
		return nil, err
	}
	for _, field := range []string{"name", "expires_date", "expires_time", "allowed_ips", "form_id"} {
		if len(form[field]) != 1 {
			return nil, problem.New(problem.InvalidRequest, "This form did not arrive whole. Go back and send it again.")
		}
	}
	if id := form.Get("form_id"); len(id) < 16 || len(id) > 64 {
		return nil, problem.New(problem.InvalidRequest, "This form is none that this page has shown. Open it again.")
	}
	return form, nil
}

// onceName is what a form is called in the store: of the account, and none of
// the client's own text.
func (v *visit) onceName(formID string) string {
	sum := sha256.Sum256([]byte(string(v.account.ID) + "\x00" + formID))
	return "form-" + hex.EncodeToString(sum[:20])
}
