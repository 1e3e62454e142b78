package dashboard

import (
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// eventView is an event of the audit log in words.
type eventView struct {
	At  time.Time
	Who actorView
	// What says what was done, or tried; what it was done to follows.
	What   string
	Target *actorView // nil: nothing, or whoever did it
	// Next is the key that took the place of the target.
	Next    *actorView
	Changes []changeView
	// ChangesLabel says what the changes are, and Open whether they are shown
	// unasked.
	ChangesLabel string
	Open         bool
	Done         bool
	// Outcome is the code of a refusal.
	Outcome   string
	Address   string
	RequestID string
}

// actorView is who did something, or what it was done to.
type actorView struct {
	// Kind says what it is: "key" or "user"; "" for an operator.
	Kind, Name, Detail, ID string
	// Link leads to the page of a key that there is.
	Link string
}

// tell says in words what happened, but for the fields that changed.
func (n *naming) tell(e keystore.Event) (eventView, error) {
	if err := n.learn(e); err != nil {
		return eventView{}, err
	}
	view := eventView{
		At: e.At, Done: e.Outcome == keystore.Done, Outcome: e.Outcome, RequestID: e.RequestID,
	}
	if e.Client.IsValid() {
		view.Address = e.Client.String()
	}
	var err error
	if view.Who, err = n.actor(e.Actor); err != nil {
		return eventView{}, err
	}
	own := e.Actor.Kind == policy.ActorSession && e.Actor.ID == string(e.User)
	words := wordsOf(e, own)
	view.What = words.done
	if !view.Done {
		view.What = "tried to " + words.tried
	}
	switch {
	case e.Key != "":
		target, err := n.keyView(e.Key)
		if err != nil {
			return eventView{}, err
		}
		view.Target = &target
	case e.User != "" && !own:
		target, err := n.userView(e.User)
		if err != nil {
			return eventView{}, err
		}
		view.Target = &target
	}
	if next := newText(e, "id"); e.Action == keystore.KeyRegenerate && next != "" {
		made, err := n.keyView(policy.KeyID(next))
		if err != nil {
			return eventView{}, err
		}
		view.Next = &made
	}
	return view, nil
}

func (n *naming) actor(a policy.Actor) (actorView, error) {
	switch a.Kind {
	case policy.ActorKey:
		return n.keyView(policy.KeyID(a.ID))
	case policy.ActorSession:
		return n.userView(keystore.UserID(a.ID))
	case policy.ActorCLI:
		return actorView{Name: "An operator", Detail: "command line"}, nil
	case policy.ActorOperator:
	}
	return actorView{Name: "An operator"}, nil
}

func (n *naming) keyView(id policy.KeyID) (actorView, error) {
	k, err := n.key(id)
	view := actorView{Kind: "key", Name: k.Name, Detail: k.Detail, ID: string(id)}
	if view.Name == "" {
		view.Name = "a key that is gone"
		if !n.v.caller.Permissions().Has(policy.ReadKeys) {
			view.Name = "a key"
		}
	}
	if k.Exists {
		view.Link = keyPath(id)
	}
	return view, err
}

func (n *naming) userView(id keystore.UserID) (actorView, error) {
	u, err := n.user(id)
	view := actorView{Kind: "user", Name: u.Name, Detail: u.Detail, ID: string(id)}
	switch {
	case view.Name == "" && view.Detail != "":
		view.Name, view.Detail = view.Detail, ""
	case view.Name == "":
		view.Name = "a user who is gone"
	}
	return view, err
}

// words are what an action is called when it was done, and when it was not.
type words struct{ done, tried string }

// wordsOf says what the event's action was; own: a user did it to itself.
func wordsOf(e keystore.Event, own bool) words {
	switch e.Action {
	case keystore.KeyCreate:
		return words{"created the key", "create a key"}
	case keystore.KeyUpdate:
		return onlySwitched(e, "is_active", words{"changed the key", "change the key"}, "enabled the key", "disabled the key")
	case keystore.KeyRevoke:
		return words{"revoked the key", "revoke the key"}
	case keystore.KeyRegenerate:
		return words{"regenerated the key", "regenerate the key"}
	case keystore.AccountPut:
		if oldText(e, "name") == "" && newText(e, "name") != "" {
			return words{"created the account", "create the account"}
		}
		return words{"changed the account", "change the account"}
	case keystore.AccountDelete:
		return words{"deleted the account", "delete the account"}
	case keystore.AccountImport:
		return words{"imported the account", "import the account"}
	case keystore.UserCreate:
		return words{"added the user", "add a user"}
	case keystore.UserUpdate:
		return onlySwitched(e, "disabled", words{"changed the user", "change a user"}, "disabled the user", "enabled the user")
	case keystore.UserDelete:
		return words{"removed the user", "remove a user"}
	case keystore.UserPassword, keystore.UserTOTP, keystore.UserSignIn, keystore.UserSignOut:
		return personalWords(e, own)
	}
	return words{"did “" + string(e.Action) + "”", "do “" + string(e.Action) + "”"}
}

// personalWords are of what people do to how they sign in themselves.
func personalWords(e keystore.Event, own bool) words {
	switch e.Action { //nolint:exhaustive // the others are wordsOf's
	case keystore.UserPassword:
		if own {
			return words{"chose a new password", "choose a new password"}
		}
		return words{"set a new password for", "set a new password"}
	case keystore.UserTOTP:
		done := "set up an authenticator"
		if newText(e, "totp") == "false" {
			done = "removed the authenticator"
		}
		if !own {
			done += " of"
		}
		return words{done, "change an authenticator"}
	case keystore.UserSignIn:
		return words{"signed in", "sign in"}
	}
	if own {
		return words{"ended sessions", "end sessions"}
	}
	return words{"ended sessions of", "end sessions of a user"}
}

// onlySwitched has better words for a change of nothing but one yes or no.
func onlySwitched(e keystore.Event, field string, otherwise words, on, off string) words {
	if len(e.Changes) != 1 || e.Changes[0].Field != field {
		return otherwise
	}
	if newText(e, field) == "true" {
		return words{on, otherwise.tried}
	}
	return words{off, otherwise.tried}
}
