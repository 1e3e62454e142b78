package dashboard

import (
	"errors"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// naming finds out what keys and users of the account are called, each once
// for a page or an export.
type naming struct {
	d *Dashboard
	v *visit
	// keys are all that there are; nil before they were asked for.
	keys  map[policy.KeyID]policy.Key
	users map[keystore.UserID]named
	// gone are names that events tell of keys and users that are no more.
	gone map[string]named
}

// named is what a key or user is called.
type named struct {
	Name string
	// Detail tells apart who has the same name: an e-mail address, or a
	// token's preview.
	Detail string
	Exists bool
}

func (d *Dashboard) newNaming(v *visit) *naming {
	return &naming{d: d, v: v, users: map[keystore.UserID]named{}, gone: map[string]named{}}
}

// maxKeyPage is how many keys are read at a time.
const maxKeyPage = 1000

// allKeys are the keys of the account by id; none for whoever may not see them.
func (n *naming) allKeys() (map[policy.KeyID]policy.Key, error) {
	if n.keys != nil {
		return n.keys, nil
	}
	all := map[policy.KeyID]policy.Key{}
	if n.v.caller.Permissions().Has(policy.ReadKeys) {
		for cursor, last := "", false; !last; last = cursor == "" {
			page, next, err := n.d.o.Store.List(n.v.r.Context(), n.v.caller, cursor, maxKeyPage)
			if err != nil {
				return nil, err
			}
			for _, k := range page {
				all[k.ID] = k
			}
			cursor = next
		}
	}
	n.keys = all
	return all, nil
}

// key says what a key is called.
func (n *naming) key(id policy.KeyID) (named, error) {
	all, err := n.allKeys()
	if err != nil {
		return named{}, err
	}
	if k, ok := all[id]; ok {
		return named{Name: k.Name, Detail: k.Preview, Exists: true}, nil
	}
	return n.gone[string(id)], nil
}

// user says what a user is called.
func (n *naming) user(id keystore.UserID) (named, error) {
	if known, ok := n.users[id]; ok {
		return known, nil
	}
	u, err := n.d.o.Store.GetUser(n.v.r.Context(), n.v.caller, id)
	var found named
	switch {
	case errors.Is(err, keystore.ErrNotFound):
		found = n.gone[string(id)]
	case err != nil:
		return named{}, err
	default:
		found = named{Name: u.Name, Detail: string(u.Email), Exists: true}
	}
	n.users[id] = found
	return found, nil
}

// learn takes from an event what it says of a key or user that it removed.
// Events come newest first, so a removal comes before what went before it.
func (n *naming) learn(e keystore.Event) error {
	switch e.Action { //nolint:exhaustive // only these remove something
	case keystore.KeyRevoke:
		n.gone[string(e.Key)] = named{Name: oldText(e, "name")}
	case keystore.KeyRegenerate:
		next, err := n.key(policy.KeyID(newText(e, "id")))
		if err != nil {
			return err
		}
		n.gone[string(e.Key)] = named{Name: next.Name, Detail: oldText(e, "token_preview")}
	case keystore.UserDelete:
		n.gone[string(e.User)] = named{Name: oldText(e, "name"), Detail: oldText(e, "email")}
	}
	return nil
}

func oldText(e keystore.Event, field string) string {
	for _, c := range e.Changes {
		if c.Field == field {
			return readValue(c.Old).text
		}
	}
	return ""
}

func newText(e keystore.Event, field string) string {
	for _, c := range e.Changes {
		if c.Field == field {
			return readValue(c.New).text
		}
	}
	return ""
}
