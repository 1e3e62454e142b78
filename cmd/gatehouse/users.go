package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"gatehouse/proxy/contract"
)

type userCommand struct {
	Add           userAdd    `cmd:"" help:"Let a person sign in for an account, and print the first password, once."`
	List          userList   `cmd:"" help:"List the users of an account, the newest first."`
	Update        userUpdate `cmd:"" help:"Rename, disable or enable a user. Whoever is disabled is signed out."`
	Delete        userDelete `cmd:"" help:"Delete a user, who is signed out."`
	ResetPassword userReset  `cmd:"" help:"Give a user a new password, and print it, once. The user is signed out, and must change it."`
}

// userFlags are those of every command about users.
type userFlags struct {
	adminFlags
	Account string `help:"The account's id." required:"" placeholder:"ID"`
}

func (f *userFlags) path() string { return "/accounts/" + url.PathEscape(f.Account) + "/users" }

// passwordFlags say where a password comes from. It is never an argument: other
// users of the machine see those.
type passwordFlags struct {
	PasswordFile string `help:"The file whose first line is the password, - for the standard input. Left out: one is made, and printed." placeholder:"FILE"`
}

const maxPasswordFile = 4 << 10

// password is nil where one is to be made.
func (f *passwordFlags) password(t *terminal) (*string, error) {
	if f.PasswordFile == "" {
		return nil, nil
	}
	in := t.in
	if f.PasswordFile != "-" {
		file, err := os.Open(f.PasswordFile)
		if err != nil {
			return nil, usageError{fmt.Errorf("--password-file: %w", err)}
		}
		defer func() { _ = file.Close() }() // it was only read
		in = file
	}
	content, err := io.ReadAll(io.LimitReader(in, maxPasswordFile))
	if err != nil {
		return nil, usageError{fmt.Errorf("--password-file: %w", err)}
	}
	line, _, _ := strings.Cut(string(content), "\n")
	line = strings.TrimSuffix(line, "\r")
	return &line, nil
}

type userAdd struct {
	userFlags
	passwordFlags
	Email string `help:"The e-mail address to sign in with." required:"" placeholder:"ADDRESS"`
	Name  string `help:"The person's name."`
}

// Run creates the user.
func (c *userAdd) Run(t *terminal) error {
	body := struct {
		Email    string  `json:"email"`
		Name     string  `json:"name"`
		Password *string `json:"password,omitempty"`
	}{Email: c.Email, Name: c.Name}
	var err error
	if body.Password, err = c.password(t); err != nil {
		return err
	}
	return c.do(t, http.MethodPost, c.path(), body, t.showPassword)
}

// showPassword shows a user, and a password that cannot be shown again.
func (t *terminal) showPassword(answer []byte) error {
	u, err := dataOf[contract.UserWithPassword](answer)
	if err != nil {
		return err
	}
	rows := [][]string{{"User", plain(u.ID)}, {"E-mail", plain(u.Email)}}
	if u.Password == "" {
		return t.table(rows)
	}
	if err := t.table(append(rows, []string{"Password", plain(u.Password)})); err != nil {
		return err
	}
	return t.print("\nThis password is shown only this once, and must be changed at the first sign-in.\n")
}

type userList struct{ userFlags }

// Run lists the users.
func (c *userList) Run(t *terminal) error {
	return c.list(t, c.path(), func(items []json.RawMessage) error {
		rows := [][]string{{"ID", "E-MAIL", "NAME", "STATE", "LAST SIGN-IN", "CREATED"}}
		for _, item := range items {
			var u contract.User
			if err := json.Unmarshal(item, &u); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			last := "never"
			if u.LastSignInAt != nil {
				last = moment(*u.LastSignInAt)
			}
			rows = append(rows, []string{plain(u.ID), plain(u.Email), plain(u.Name), userState(u), last, moment(u.CreatedAt)})
		}
		return t.table(rows)
	})
}

func userState(u contract.User) string {
	switch {
	case u.IsDisabled:
		return "disabled"
	case u.MustChange:
		return "first password"
	}
	return "active"
}

// userArg names a user, by id or by e-mail address.
type userArg struct {
	User string `arg:"" help:"The user's id or e-mail address."`
}

// find returns the path of the user.
func (a *userArg) find(t *terminal, f *userFlags) (string, error) {
	if !strings.Contains(a.User, "@") {
		return f.path() + "/" + url.PathEscape(a.User), nil
	}
	r, err := f.remote(t)
	if err != nil {
		return "", err
	}
	r.json = false
	id := ""
	err = r.list(t, f.path(), url.Values{}, 0, func(items []json.RawMessage) error {
		for _, item := range items {
			var u contract.User
			if err := json.Unmarshal(item, &u); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			if strings.EqualFold(u.Email, a.User) {
				id = u.ID
			}
		}
		return nil
	})
	if err == nil && id == "" {
		err = errors.New("the account has no user with this e-mail address")
	}
	return f.path() + "/" + url.PathEscape(id), err
}

type userUpdate struct {
	userFlags
	userArg
	Name    *string `help:"The person's name."`
	Enable  bool    `help:"Let the user sign in again." xor:"active"`
	Disable bool    `help:"Sign the user out, and let nobody in as it." xor:"active"`
}

// Run changes the user.
func (c *userUpdate) Run(t *terminal) error {
	body := map[string]any{}
	if c.Name != nil {
		body["name"] = *c.Name
	}
	if c.Enable || c.Disable {
		body["is_disabled"] = c.Disable
	}
	if len(body) == 0 {
		return usageError{errors.New("say what is to change: --name, --enable or --disable")}
	}
	path, err := c.find(t, &c.userFlags)
	if err != nil {
		return err
	}
	return c.do(t, http.MethodPatch, path, body, func(answer []byte) error {
		u, err := dataOf[contract.User](answer)
		if err != nil {
			return err
		}
		return t.print("User %s (%s) is %s.\n", plain(u.ID), plain(u.Email), userState(u))
	})
}

type userDelete struct {
	userFlags
	userArg
}

// Run deletes the user.
func (c *userDelete) Run(t *terminal) error {
	path, err := c.find(t, &c.userFlags)
	if err != nil {
		return err
	}
	return c.do(t, http.MethodDelete, path, nil, func([]byte) error { return t.print("User %s is deleted.\n", plain(c.User)) })
}

type userReset struct {
	userFlags
	passwordFlags
	userArg
}

// Run sets the password.
func (c *userReset) Run(t *terminal) error {
	body := struct {
		Password *string `json:"password,omitempty"`
	}{}
	var err error
	if body.Password, err = c.password(t); err != nil {
		return err
	}
	path, err := c.find(t, &c.userFlags)
	if err != nil {
		return err
	}
	return c.do(t, http.MethodPost, path+"/password", body, t.showPassword)
}
