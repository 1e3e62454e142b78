package adminapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/password"
	"gatehouse/proxy/problem"
)

func (a *API) createUser(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	by, err := a.operator(r, by)
	if err != nil {
		return err
	}
	var body contract.NewUser
	if err := contract.ReadBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	asked, err := body.Parse()
	if err != nil {
		return err
	}
	var generated string
	if asked.PasswordHash, generated, err = a.hash(r.Context(), body.Password); err != nil {
		return err
	}
	user, err := a.o.Users.CreateUser(r.Context(), by, asked)
	if err != nil {
		return err
	}
	w.Header().Set("Location", Prefix+"accounts/"+string(by.Account.ID)+"/users/"+string(user.ID))
	return contract.Write(w, http.StatusCreated, contract.WithPassword("User created", user, generated))
}

// hash hashes the password that was given, or one that is generated, which it
// then returns too.
func (a *API) hash(ctx context.Context, given contract.Given[string]) (hash, generated string, err error) {
	chosen := given.Value
	if !given.Present {
		generated = password.Generate()
		chosen = generated
	}
	hash, err = a.o.Passwords.Hash(ctx, chosen)
	if errors.Is(err, password.ErrBusy) {
		err = &problem.Problem{Code: problem.RateLimited, Detail: "Too many passwords are set or shown at the moment. Try again shortly.", RetryAfter: 5 * time.Second, Cause: err}
	}
	return hash, generated, err
}

func (a *API) listUsers(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	by, err := a.operator(r, by)
	if err != nil {
		return err
	}
	limit, cursor, err := contract.ReadPage(r.URL.RawQuery)
	if err != nil {
		return err
	}
	users, next, err := a.o.Users.ListUsers(r.Context(), by, cursor, limit)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.PageOf(users, contract.ShowUser, next))
}

func (a *API) updateUser(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	by, err := a.operator(r, by)
	if err != nil {
		return err
	}
	var body contract.UserUpdate
	if err := contract.ReadBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	asked, err := body.Parse()
	if err != nil {
		return err
	}
	user, err := a.o.Users.UpdateUser(r.Context(), by, keystore.UserID(r.PathValue("user")), asked)
	if err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Message: "User updated", Data: contract.ShowUser(user)})
}

func (a *API) deleteUser(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	by, err := a.operator(r, by)
	if err != nil {
		return err
	}
	id := r.PathValue("user")
	if err := a.o.Users.DeleteUser(r.Context(), by, keystore.UserID(id)); err != nil {
		return err
	}
	return contract.Write(w, http.StatusOK, contract.Envelope{Success: true, Message: "User deleted", Data: struct {
		ID        string `json:"id"`
		DeletedAt int64  `json:"deleted_at"`
	}{id, a.o.Now().Unix()}})
}

// setPassword sets a password that must be changed at the next sign-in.
func (a *API) setPassword(w http.ResponseWriter, r *http.Request, by policy.Caller) error {
	by, err := a.operator(r, by)
	if err != nil {
		return err
	}
	var body contract.NewPassword
	if err := contract.ReadOptionalBody(w, r, contract.KeyBodyLimit, &body); err != nil {
		return err
	}
	id := keystore.UserID(r.PathValue("user"))
	user, err := a.o.Users.GetUser(r.Context(), by, id)
	if err != nil {
		return err
	}
	if err := body.Check(user); err != nil {
		return err
	}
	hash, generated, err := a.hash(r.Context(), body.Password)
	if err != nil {
		return err
	}
	if err := a.o.Users.SetPassword(r.Context(), by, id, hash, true); err != nil {
		return err
	}
	user.MustChange = true
	return contract.Write(w, http.StatusOK, contract.WithPassword("Password set", user, generated))
}
