package dashboard

import (
	"errors"
	"net/url"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

const (
	disableTitle    = "Disable key"
	regenerateTitle = "Regenerate key"
	revokeTitle     = "Revoke key"
)

// maybeRegenerated is for who has not seen a token that there may be.
const maybeRegenerated = "the key may or may not have been regenerated. Look at the list of keys: " +
	"if the preview of its token has changed, the old token works no longer than its grace period, and the new one cannot be shown any more. Regenerate the key again then."

// ask shows a question about a key.
func (d *Dashboard) ask(v *visit, name, title string, allowed func(policy.Key) error) error {
	k, err := d.changedKey(v)
	if err == nil {
		err = allowed(k)
	}
	if err != nil {
		return err
	}
	p, err := d.question(v, k, backOf(v.r.URL.Query()))
	if err != nil {
		return err
	}
	return d.show(v, page{name: name, title: title, current: keysPath, content: p})
}

// notReplaced: a key that was replaced works on as it is until its grace ends.
func notReplaced(k policy.Key) error {
	if k.Replaced() {
		return keystore.ErrReplaced
	}
	return nil
}

func (d *Dashboard) askDisable(v *visit) error {
	return d.ask(v, "key-disable", disableTitle, notReplaced)
}

func (d *Dashboard) askRegenerate(v *visit) error {
	return d.ask(v, "key-regenerate", regenerateTitle, notReplaced)
}

func (d *Dashboard) askRevoke(v *visit) error {
	return d.ask(v, "key-revoke", revokeTitle, func(policy.Key) error { return nil })
}

func (d *Dashboard) disableKey(v *visit) error { return d.setActive(v, false, "key_disabled") }

func (d *Dashboard) enableKey(v *visit) error { return d.setActive(v, true, "key_enabled") }

// setActive disables or enables the key.
func (d *Dashboard) setActive(v *visit, active bool, notice string) error {
	k, form, err := d.answered(v)
	if err != nil {
		return err
	}
	asked := contract.UpdateKey{IsActive: contract.Given[bool]{Present: true, Value: active}}
	update, err := asked.Parse(v.caller.Account, d.o.Catalogue, d.o.Now())
	if err != nil {
		return err
	}
	if _, _, err := d.o.Store.Update(v.r.Context(), v.caller, k.ID, update); err != nil {
		return noSuchKey(perhapsDone(err, "the key may or may not have been changed. Look at the key before you try again."))
	}
	return d.backToList(v, form, notice)
}

// answered reads the form that answers a question, and the key it is about.
func (d *Dashboard) answered(v *visit) (policy.Key, url.Values, error) {
	form, err := v.form()
	if err != nil {
		return policy.Key{}, nil, err
	}
	k, err := d.changedKey(v)
	return k, form, err
}

// backToList leads to where the question was asked, with a notice.
func (d *Dashboard) backToList(v *visit, form url.Values, notice string) error {
	list, _ := d.readKeyQuery(backOf(form))
	return v.redirect(list.with(notice))
}

// revokeKey revokes the key for who typed its name.
func (d *Dashboard) revokeKey(v *visit) error {
	k, form, err := d.answered(v)
	if err != nil {
		return err
	}
	p, err := d.question(v, k, backOf(form))
	if err != nil {
		return err
	}
	if !p.confirmed(form) {
		return d.askAgain(v, "key-revoke", revokeTitle, p)
	}
	if _, err := d.o.Store.Revoke(v.r.Context(), v.caller, k.ID); err != nil {
		return noSuchKey(perhapsDone(err, "the key may or may not have been revoked. Look at the list of keys: if the key is still there, revoke it again."))
	}
	return d.backToList(v, form, "key_revoked")
}

// regenerateKey gives who typed the key's name a new key in its place, and the
// token of that.
func (d *Dashboard) regenerateKey(v *visit) error {
	k, form, err := d.answered(v)
	if err == nil {
		err = notReplaced(k)
	}
	if err != nil {
		return err
	}
	p, err := d.question(v, k, backOf(form))
	if err != nil {
		return err
	}
	p.Grace = readGrace(form)
	grace, fault := p.Grace.duration()
	p.Wrong.Grace = fault
	if !p.confirmed(form) || fault != "" {
		return d.askAgain(v, "key-regenerate", regenerateTitle, p)
	}
	next, token, err := d.o.Store.Regenerate(v.r.Context(), v.caller, k.ID, grace)
	if errors.Is(err, keystore.ErrKeyLimit) {
		d.o.Store.Refused(v.r.Context(), v.caller, keystore.KeyRegenerate, k.ID, string(problem.KeyLimitReached))
		p.Wrong.Grace = "This account has as many keys as it may have, and both keys count during a grace period. Choose none, or revoke a key that is not needed."
		return d.askAgain(v, "key-regenerate", regenerateTitle, p)
	}
	if err != nil {
		return noSuchKey(perhapsDone(err, maybeRegenerated))
	}
	return d.showToken(v, next, token, true)
}
