package contract

import (
	"gatehouse/keystore"
	"gatehouse/proxy/password"
)

// NewUser is the body of a request that creates a user.
type NewUser struct {
	Email    string        `json:"email"`
	Name     string        `json:"name"`
	Password Given[string] `json:"password"`
}

// Parse checks every field and returns the user that is asked for, less its
// password, or a 422 problem that names each fault.
func (u NewUser) Parse() (keystore.NewUser, error) {
	var wrong faults
	email, err := keystore.ParseEmail(u.Email)
	if err != nil {
		wrong.add("email", "This is not an e-mail address such as ada@example.com.")
	}
	name, fault := readName(u.Name)
	if fault != "" {
		wrong.add("name", fault)
	}
	checkPassword(u.Password, email, &wrong)
	return keystore.NewUser{Email: email, Name: name, MustChange: true}, wrong.err()
}

// checkPassword never repeats the password.
func checkPassword(p Given[string], email keystore.Email, wrong *faults) {
	if !p.Present {
		return
	}
	if err := password.Check(p.Value, string(email)); err != nil {
		wrong.add("password", "This cannot be the password: "+err.Error()+".")
	}
}

// NewPassword is the body of a request that sets a user's password anew.
type NewPassword struct {
	Password Given[string] `json:"password"`
}

// Check returns nil where the password can be that of the user, or is left to
// Gatehouse, and otherwise a 422 problem.
func (p NewPassword) Check(u keystore.User) error {
	var wrong faults
	checkPassword(p.Password, u.Email, &wrong)
	return wrong.err()
}

// UserUpdate is the body of a request that changes a user. What is left out
// stays as it is.
type UserUpdate struct {
	Name       Given[string] `json:"name"`
	IsDisabled Given[bool]   `json:"is_disabled"`
}

// Parse returns the change that is asked for, or a 422 problem.
func (u UserUpdate) Parse() (keystore.UserChange, error) {
	var wrong faults
	var change keystore.UserChange
	if u.Name.Present {
		name, fault := readName(u.Name.Value)
		if fault != "" {
			wrong.add("name", fault)
		}
		change.Name = &name
	}
	if u.IsDisabled.Present {
		change.Disabled = &u.IsDisabled.Value
	}
	return change, wrong.err()
}

// User is a user as operators see it. It has no secret.
type User struct {
	ID           string `json:"id"`
	Email        string `json:"email"`
	Name         string `json:"name"`
	MustChange   bool   `json:"must_change_password"`
	TOTP         bool   `json:"has_totp"`
	IsDisabled   bool   `json:"is_disabled"`
	CreatedAt    int64  `json:"created_at"`
	LastSignInAt *int64 `json:"last_sign_in_at"`
}

// ShowUser gives a user its documented form.
func ShowUser(u keystore.User) User {
	shown := User{
		ID: string(u.ID), Email: string(u.Email), Name: u.Name, MustChange: u.MustChange, TOTP: u.TOTP, IsDisabled: u.Disabled,
		CreatedAt: u.CreatedAt.Unix(),
	}
	if !u.LastSignInAt.IsZero() {
		at := u.LastSignInAt.Unix()
		shown.LastSignInAt = &at
	}
	return shown
}

// UserWithPassword is a user as the answer shows it that gives away a first
// password; without one where the operator gave it.
type UserWithPassword struct {
	User
	Password string `json:"password,omitempty"`
}

// passwordWarning stands where a generated password does.
const passwordWarning = "This password will only be shown once. It must be changed at the first sign-in."

// WithPassword is the answer to a request that gave a user a password, which is
// "" where it was the operator's own.
func WithPassword(message string, u keystore.User, generated string) Envelope {
	e := Envelope{Success: true, Message: message, Data: UserWithPassword{User: ShowUser(u), Password: generated}}
	if generated != "" {
		e.Warning = passwordWarning
	}
	return e
}
