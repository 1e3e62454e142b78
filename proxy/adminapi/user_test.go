package adminapi_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"gatehouse/keystore"
	"gatehouse/proxy/problem"
)

const (
	userBody = `{"email":"Ada@Example.com","name":"Ada"}`
	noUser   = acme + "/users/11111111-0000-4000-8000-000000000001"
)

// newUser creates a user of acme and returns its path and first password.
func (w *world) newUser(body string) (path, password string) {
	w.t.Helper()
	var c struct{ Data struct{ ID, Password string } }
	if err := json.Unmarshal(w.must(http.MethodPost, acme+"/users", body).Body.Bytes(), &c); err != nil {
		w.t.Fatal(err)
	}
	return acme + "/users/" + c.Data.ID, c.Data.Password
}

// stored returns the credentials of the user with that address.
func (w *world) stored(email string) *keystore.SignInUser {
	w.t.Helper()
	u, err := w.store.UserByEmail(w.t.Context(), keystore.Email(email))
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// opens reports whether the password is that of the user.
func (w *world) opens(email, password string) bool {
	w.t.Helper()
	matches, _, err := w.passwords.Match(w.t.Context(), password, w.stored(email).Credentials.PasswordHash)
	if err != nil {
		w.t.Fatal(err)
	}
	return matches
}

func TestFirstPasswordIsShownOnceAndMustBeChanged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	out := w.must(http.MethodPost, acme+"/users", userBody)
	var c struct {
		Data    struct{ ID, Email, Password string }
		Warning string
	}
	if err := json.Unmarshal(out.Body.Bytes(), &c); err != nil {
		t.Fatal(err)
	}
	if out.Code != http.StatusCreated || out.Header().Get("Location") != acme+"/users/"+c.Data.ID || out.Header().Get("Cache-Control") != "no-store" ||
		c.Data.Email != "ada@example.com" || len(c.Data.Password) != 23 || !strings.Contains(c.Warning, "only be shown once") {
		t.Errorf("answered %d %v %s", out.Code, out.Header(), out.Body)
	}
	if !w.opens("ada@example.com", c.Data.Password) || !w.stored("ada@example.com").User.MustChange {
		t.Error("the first password is not the user's, or need not be changed")
	}
	list := w.must(http.MethodGet, acme+"/users", "").Body.String()
	for _, want := range []string{`"email":"ada@example.com","name":"Ada","must_change_password":true,"has_totp":false,"is_disabled":false,"created_at":`, `"last_sign_in_at":null`, `"next_cursor":null`} {
		if !strings.Contains(list, want) {
			t.Errorf("listed %s, want %s", list, want)
		}
	}
	if strings.Contains(list, "argon2") || strings.Contains(list, c.Data.Password) || strings.Contains(w.log.String(), c.Data.Password) {
		t.Errorf("a secret is in the list or the log: %s", list)
	}
}

func TestOperatorsPasswordIsNotRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	out := w.must(http.MethodPost, acme+"/users", `{"email":"ada@example.com","password":"kV9 mutton chop"}`)
	if !w.opens("ada@example.com", "kV9 mutton chop") || strings.Contains(out.Body.String(), "mutton") || strings.Contains(out.Body.String(), "warning") ||
		strings.Contains(w.log.String(), "mutton") || !w.stored("ada@example.com").User.MustChange {
		t.Errorf("answered %s", out.Body)
	}
}

func TestPasswordIsSetAnew(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	path, first := w.newUser(userBody)
	before := w.stored("ada@example.com").User.Epoch
	var c struct{ Data struct{ Password string } }
	if err := json.Unmarshal(w.must(http.MethodPost, path+"/password", "").Body.Bytes(), &c); err != nil {
		t.Fatal(err)
	}
	if w.opens("ada@example.com", first) || !w.opens("ada@example.com", c.Data.Password) || w.stored("ada@example.com").User.Epoch <= before {
		t.Error("the old password works, the new one does not, or sessions go on")
	}
	w.must(http.MethodPost, path+"/password", `{"password":"kV9 mutton chop"}`)
	if !w.opens("ada@example.com", "kV9 mutton chop") || !w.stored("ada@example.com").User.MustChange {
		t.Error("the password that was given does not work")
	}
	for body, code := range map[string]problem.Code{
		`{"password":"short"}`: problem.ValidationFailed, `{"password":null}`: problem.ValidationFailed, `{"password":"ada@example.com"}`: problem.ValidationFailed,
		`{"pasword":"kV9 mutton chop"}`: problem.ValidationFailed, `x`: problem.InvalidRequest,
	} {
		check(t, w.do(http.MethodPost, path+"/password", body), code, "")
	}
	if !w.opens("ada@example.com", "kV9 mutton chop") {
		t.Error("a refused password was set")
	}
	check(t, w.do(http.MethodPost, noUser+"/password", ""), problem.NotFound, "")
}

func TestUserIsUpdatedAndDeleted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	path, _ := w.newUser(userBody)
	if out := w.must(http.MethodPatch, path, `{"is_disabled":true}`); !strings.Contains(out.Body.String(), `"name":"Ada"`) || !w.stored("ada@example.com").User.Disabled {
		t.Errorf("answered %s", out.Body)
	}
	if w.must(http.MethodPatch, path, `{"name":"Ada L."}`); w.stored("ada@example.com").User.Name != "Ada L." || !w.stored("ada@example.com").User.Disabled {
		t.Errorf("stored %+v", w.stored("ada@example.com").User)
	}
	for _, body := range []string{`{"email":"x@example.com"}`, `{"is_disabled":null}`, `{"name":"a\u0000b"}`} {
		check(t, w.do(http.MethodPatch, path, body), problem.ValidationFailed, "")
	}
	check(t, w.do(http.MethodPatch, noUser, `{"name":"x"}`), problem.NotFound, "")
	w.must(http.MethodDelete, path, "")
	check(t, w.do(http.MethodDelete, path, ""), problem.NotFound, "")
	w.newUser(userBody) // the address is free
}

func TestUserIsAskedForStrictly(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	for body, says := range map[string]string{
		`{"email":"nonsense"}`:            "email",
		`{}`:                              "email",
		`{"email":"a@b.c","mail":"x"}`:    "mail",
		`{"email":"a@b.c","Name":"x"}`:    "Name",
		`{"email":"a@b.c","name":"a\nb"}`: "name",
		`{"email":"a@b.c","password":""}`: "at least 12",
		`{"email":"a@b.c","password":"` + strings.Repeat("ab", 65) + `"}`: "at most 128",
		`{"email":"a@b.c","password":"password1234"}`:                     "commonest",
		`{"email":"password1@b.c","password":"Password1@B.C"}`:            "e-mail address",
		`{"email":"a@b.c","password":null}`:                               "password",
	} {
		out := w.do(http.MethodPost, acme+"/users", body)
		check(t, out, problem.ValidationFailed, says)
		if strings.Contains(out.Body.String(), "password1234") {
			t.Errorf("the answer repeats the password: %s", out.Body)
		}
	}
	check(t, w.do(http.MethodPost, accounts+"/nobody/users", userBody), problem.NotFound, "")
	check(t, w.do(http.MethodGet, accounts+"/nobody/users", ""), problem.NotFound, "")
	check(t, w.do(http.MethodPut, acme+"/users", userBody), problem.MethodNotAllowed, "")
	check(t, w.do(http.MethodDelete, acme+"/users/a%20b", ""), problem.NotFound, "")
	if list := w.must(http.MethodGet, acme+"/users", "").Body.String(); !strings.Contains(list, `"data":[]`) {
		t.Errorf("a user was made: %s", list)
	}
}

func TestEmailOfAnotherAccountIsTaken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(http.MethodPut, acme, accountBody)
	w.must(http.MethodPut, accounts+"/zeta", accountBody)
	path, _ := w.newUser(userBody)
	check(t, w.do(http.MethodPost, accounts+"/zeta/users", userBody), problem.Conflict, "e-mail")
	check(t, w.do(http.MethodDelete, strings.Replace(path, "acme", "zeta", 1), ""), problem.NotFound, "")
	events := w.must(http.MethodGet, accounts+"/zeta/audit-log?action=user.create", "").Body.String()
	if !strings.Contains(events, `"outcome":"conflict"`) {
		t.Errorf("the refusal is not in the trail: %s", events)
	}
}
