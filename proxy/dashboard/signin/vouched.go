package signin

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// Vouched is a person whom an identity provider vouches for.
type Vouched struct {
	// Provider is its name in the configuration.
	Provider string
	Identity keystore.Identity
	// Account is the one whose users the provider may vouch for, in this case.
	Account policy.AccountID
	// Email is the address by which a user is found who signs in there for the
	// first time. It is only set where the provider is trusted with it.
	Email, Name string
	// Create makes a user of somebody who is none yet.
	Create bool
}

// Admit counts an attempt from the address before a provider is asked about
// it, or returns *TooManyError.
func (a *Authenticator) Admit(from From) error {
	err := a.limited(from, a.limits.from(from.Client, a.o.Now()))
	if err != nil {
		a.counted(ByProvider, err)
	}
	return err
}

// SignInVouched begins a session for a person whom a provider vouches for. A
// user is found by its identity; one without an identity by its e-mail
// address, and has that identity for good from then on. It returns
// ErrUnknownPerson, for a user of another account and an address whose user has
// another identity too, and ErrRefused for one who may not sign in.
//
// A second step is the provider's business, and whether the password must be
// changed matters to who shows the password.
func (a *Authenticator) SignInVouched(ctx context.Context, v Vouched, from From) (begun Session, err error) {
	defer func() { a.counted(ByProvider, err) }()
	for range signInTries {
		user, err := a.signInVouched(ctx, v, from)
		switch {
		case errors.Is(err, keystore.ErrConflict), errors.Is(err, keystore.ErrEmailTaken):
			continue // another request made or changed the user
		case errors.Is(err, keystore.ErrIdentityTaken):
			a.refused(&keystore.SignInUser{}, from, err)
			return Session{}, ErrUnknownPerson
		case err != nil:
			return Session{}, err
		}
		return a.begin(ctx, user, from, v.Provider)
	}
	return Session{}, fmt.Errorf("sign in: %w", keystore.ErrConflict)
}

func (a *Authenticator) signInVouched(ctx context.Context, v Vouched, from From) (keystore.User, error) {
	found, err := a.o.Users.UserByIdentity(ctx, v.Identity)
	if errors.Is(err, keystore.ErrNotFound) {
		found, err = a.firstTime(ctx, v, from)
	}
	if err != nil {
		return keystore.User{}, err
	}
	switch {
	case found.User.Account != v.Account:
		a.refused(found, from, fmt.Errorf("%s vouches for users of account %s here", v.Provider, v.Account))
		return keystore.User{}, ErrUnknownPerson
	case found.User.Disabled || found.Account.Status != policy.Active:
		a.refused(found, from, errors.New("the user is disabled, or the account suspended"))
		return keystore.User{}, ErrRefused
	}
	return a.o.Users.SignedIn(ctx, personOf(found, from), found, keystore.SignIn{
		Method: "provider " + v.Provider, Left: found.Credentials, Identity: v.Identity,
	})
}

// firstTime is the user of the address, made where that is wanted.
func (a *Authenticator) firstTime(ctx context.Context, v Vouched, from From) (*keystore.SignInUser, error) {
	email, err := keystore.ParseEmail(v.Email)
	if err != nil {
		a.refused(&keystore.SignInUser{}, from, fmt.Errorf("%s vouches for no address that can be a user's", v.Provider))
		return nil, ErrUnknownPerson
	}
	found, err := a.o.Users.UserByEmail(ctx, email)
	if !errors.Is(err, keystore.ErrNotFound) {
		return found, err
	}
	if !v.Create {
		a.refused(&keystore.SignInUser{}, from, fmt.Errorf("%s vouches for an address that is no user's", v.Provider))
		return nil, ErrUnknownPerson
	}
	rules, err := a.o.Users.Rules(ctx, v.Account)
	if errors.Is(err, keystore.ErrNotFound) {
		a.refused(&keystore.SignInUser{}, from, fmt.Errorf("%s vouches for a user of an account that does not exist", v.Provider))
		return nil, ErrUnknownPerson
	}
	if err != nil {
		return nil, err
	}
	if rules.Status != policy.Active {
		a.refused(&keystore.SignInUser{}, from, errors.New("the account is suspended"))
		return nil, ErrRefused
	}
	by := policy.Caller{Account: rules, Client: from.Client, RequestID: from.RequestID, Person: policy.Actor{Kind: policy.ActorSession}}
	if _, err := a.o.Users.CreateUser(ctx, by, keystore.NewUser{Email: email, Name: v.Name, Identity: v.Identity}); err != nil {
		return nil, err
	}
	return a.o.Users.UserByIdentity(ctx, v.Identity)
}

// personOf is the user as who does something.
func personOf(u *keystore.SignInUser, from From) policy.Caller {
	return policy.Caller{
		Account: u.Account, Client: from.Client, RequestID: from.RequestID,
		Person: policy.Actor{Kind: policy.ActorSession, ID: string(u.User.ID)},
	}
}
