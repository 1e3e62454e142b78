package dashboard

import (
	"crypto/rand"
	"errors"
	"net/http"
	"slices"
	"strings"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// errMoved: the key is not what the form showed any more.
var errMoved = errors.New("the key was changed since the form was shown")

// keyToEdit finds the key that the path names.
func (d *Dashboard) keyToEdit(v *visit) (policy.Key, error) {
	id := v.r.PathValue("id")
	if !contract.IsKeyID(id) {
		return policy.Key{}, keystore.ErrNotFound
	}
	key, err := d.o.Store.Get(v.r.Context(), v.caller, policy.KeyID(id))
	if err == nil && key.Replaced() {
		err = keystore.ErrReplaced
	}
	return key, err
}

func (d *Dashboard) showEditKey(v *visit) error {
	key, err := d.keyToEdit(v)
	if err != nil {
		return err
	}
	typed := d.fieldsOf(key)
	return d.editKeyForm(v, http.StatusOK, key, keyFormPage{Typed: typed, Shown: typed.marks()})
}

func (d *Dashboard) editKeyForm(v *visit, status int, key policy.Key, p keyFormPage) error {
	p.FormID = rand.Text()
	p.Back = keysPath + "/" + string(key.ID)
	p.Path = p.Back + "/edit"
	d.complete(v, &p, &key)
	return d.show(v, page{name: "key-form", title: p.titled("Edit " + key.Name), current: keysPath, scripts: []string{"keyform.js"}, status: status, content: p})
}

// editKey changes what was really changed in the form, and nothing of a key
// that somebody else has changed meanwhile.
func (d *Dashboard) editKey(v *visit) error {
	form, err := v.keyForm()
	if err != nil {
		return err
	}
	key, err := d.keyToEdit(v)
	if err != nil {
		return err
	}
	p := keyFormPage{Typed: readKeyFields(form), Shown: form.Get("shown")}
	if do := form.Get("do"); do != "" {
		d.apply(v, do, &p.Typed, &key)
		return d.editKeyForm(v, http.StatusOK, key, p)
	}
	current := d.fieldsOf(key)
	if p.Shown != current.marks() {
		return d.editMoved(v, key, p)
	}
	if len(p.Typed.changed(&current)) == 0 {
		return v.redirect(p.backTo(key.ID, "key_unchanged"))
	}
	asked, err := p.Typed.update(&current, v.caller.Account, d.o.Catalogue, d.o.Now())
	if err != nil {
		return d.editRefused(v, key, p, err)
	}
	asked.Unless = func(before policy.Key) error {
		if found := d.fieldsOf(before); found.marks() != p.Shown {
			return errMoved
		}
		return nil
	}
	_, _, err = d.o.Store.Update(v.r.Context(), v.caller, key.ID, asked)
	switch {
	case errors.Is(err, errMoved):
		if key, err = d.keyToEdit(v); err != nil {
			return err
		}
		return d.editMoved(v, key, p)
	case errors.Is(err, keystore.ErrNotFound), errors.Is(err, keystore.ErrReplaced):
		return err
	case err != nil:
		return d.editRefused(v, key, p, perhapsDone(err, "the key may or may not have been changed. Look at the key before you try again."))
	}
	return v.redirect(p.backTo(key.ID, "key_updated"))
}

func (p keyFormPage) backTo(id policy.KeyID, notice string) string {
	return keysPath + "/" + string(id) + "?notice=" + notice
}

func (d *Dashboard) editRefused(v *visit, key policy.Key, p keyFormPage, err error) error {
	if lasting(err) {
		return err
	}
	status := d.noteRefusal(v, keystore.KeyUpdate, key.ID, err)
	p.Errors = faultsOf(err)
	return d.editKeyForm(v, status, key, p)
}

// editMoved shows the form again for a key that was changed meanwhile: what the
// person left alone is as it is now, and what both changed is theirs to decide.
func (d *Dashboard) editMoved(v *visit, key policy.Key, p keyFormPage) error {
	current := d.fieldsOf(key)
	theirs, ours := current.changedSince(p.Shown), p.Typed.changedSince(p.Shown)
	wrong := problem.New(problem.Conflict, "This key was changed while you had the form open, and nothing was saved. "+
		"Fields that you left alone now show what is new. Look at the form again, then save.")
	p.Errors = faultsOf(wrong)
	for _, field := range theirs {
		switch {
		case !slices.Contains(ours, field):
			p.Typed.take(field, &current)
		case p.Typed.value(field) != current.value(field):
			p.Errors.add(field, "This was changed meanwhile, to: "+current.words(field)+". Saving puts yours in its place.")
		}
	}
	p.Shown = current.marks()
	return d.editKeyForm(v, d.noteRefusal(v, keystore.KeyUpdate, key.ID, wrong), key, p)
}

// words are the value of a field for people.
func (f *keyFields) words(field string) string {
	switch field {
	case nameField:
		return f.Name
	case expiryField:
		if f.Expires {
			return f.Date + " " + f.Time + " UTC"
		}
		return "never"
	case addressesField:
		return orElse(f.Addresses, "any address")
	case subaccountsField:
		return orElse(f.Subaccounts, "all subaccounts")
	}
	return orElse(f.Permissions, "none")
}

func orElse(list []string, none string) string {
	if len(list) == 0 {
		return none
	}
	return strings.Join(list, ", ")
}
