package signin_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/proxy/dashboard/signin"
)

// ticket signs in with the password alone, and returns what it gets for it.
func (w *world) ticket() string {
	w.t.Helper()
	_, err := w.SignIn(w.t.Context(), signin.Proof{Email: email, Password: right}, home)
	var needed *signin.CodeNeededError
	if !errors.As(err, &needed) || needed.Wrong || needed.Ticket == "" {
		w.t.Fatalf("got %v, want a ticket", err)
	}
	if text := fmt.Sprintf("%v %+v %#v", needed, needed, needed); strings.Contains(text, needed.Ticket) {
		w.t.Errorf("printed %s", text)
	}
	return needed.Ticket
}

func (w *world) withTicket(ticket, code string) (signin.Session, error) {
	return w.SignIn(w.t.Context(), signin.Proof{Ticket: ticket, Code: code}, home)
}

func TestTicketTakesThePasswordsPlace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, recovery := w.withTOTP()
	w.advance(30 * time.Second)
	ticket := w.ticket()
	if _, err := w.withTicket(ticket, ""); !errors.Is(err, signin.ErrCodeNeeded) {
		t.Errorf("a ticket alone: got %v", err)
	}
	var needed *signin.CodeNeededError
	if _, err := w.withTicket(ticket, "000000"); !errors.As(err, &needed) || !needed.Wrong || needed.Ticket != ticket {
		t.Errorf("a wrong code: got %v", err)
	}
	if !strings.Contains(w.log.String(), "the code is wrong") {
		t.Errorf("logged %s", w.log)
	}
	w.advance(4 * time.Minute)
	s, err := w.withTicket(ticket, w.code(secret))
	if err != nil {
		t.Fatal(err)
	}
	w.goesOn(s)
	if _, err := w.withTicket(ticket, w.code(secret)); !errors.Is(err, signin.ErrCodeNeeded) {
		t.Errorf("the code again: got %v", err)
	}
	if _, err := w.withTicket(w.ticket(), recovery[0]); err != nil {
		t.Errorf("a recovery code: got %v", err)
	}
}

// TestBadTicketsAreRefusedLikeWrongPasswords: with a code that is good.
func TestBadTicketsAreRefusedLikeWrongPasswords(t *testing.T) {
	t.Parallel()
	change := func(w *world) {
		if err := w.store.EndSessions(w.t.Context(), w.by, w.user.ID); err != nil {
			w.t.Fatal(err)
		}
	}
	for name, spoil := range map[string]func(w *world, p *signin.Proof, from *signin.From){
		"five minutes old":       func(w *world, _ *signin.Proof, _ *signin.From) { w.advance(5 * time.Minute) },
		"from another address":   func(_ *world, _ *signin.Proof, from *signin.From) { from.Client = netip.MustParseAddr("203.0.113.10") },
		"from before a sign-out": func(w *world, _ *signin.Proof, _ *signin.From) { change(w) },
		"from before a password": func(w *world, _ *signin.Proof, _ *signin.From) { w.reset() },
		"of a disabled user":     func(w *world, _ *signin.Proof, _ *signin.From) { w.disable() },
		"with another MAC": func(_ *world, p *signin.Proof, _ *signin.From) {
			p.Ticket = p.Ticket[:20] + flip(p.Ticket[20:21]) + p.Ticket[21:]
		},
		"with another time": func(_ *world, p *signin.Proof, _ *signin.From) {
			p.Ticket = p.Ticket[:9] + flip(p.Ticket[9:10]) + p.Ticket[10:]
		},
		"with another address": func(_ *world, p *signin.Proof, _ *signin.From) {
			p.Ticket = p.Ticket[:60] + flip(p.Ticket[60:61]) + p.Ticket[61:]
		},
		"of nobody":               func(_ *world, p *signin.Proof, _ *signin.From) { p.Ticket = "AAAA" },
		"that is no text":         func(_ *world, p *signin.Proof, _ *signin.From) { p.Ticket = "=" },
		"that is an offer":        func(w *world, p *signin.Proof, _ *signin.From) { p.Ticket = "" },
		"with a password and all": func(_ *world, p *signin.Proof, _ *signin.From) { p.Ticket, p.Email, p.Password = "AAAA", email, right },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			stray := w.goesOn(w.signIn(right, ""))
			another := w.offer(stray).Sealed
			secret, _ := w.withTOTP()
			w.advance(30 * time.Second)
			p, from := signin.Proof{Ticket: w.ticket()}, home
			spoil(w, &p, &from)
			if p.Ticket == "" {
				p.Ticket = another
			}
			p.Code = w.code(secret)
			if _, err := w.SignIn(t.Context(), p, from); err != signin.ErrRefused { //nolint:errorlint // nothing may be wrapped around it
				t.Errorf("got %v, want ErrRefused itself", err)
			}
		})
	}
}

func (w *world) reset() {
	w.t.Helper()
	hash, err := hasher(w.t, 64).Hash(w.t.Context(), better)
	if err == nil {
		err = w.store.SetPassword(w.t.Context(), w.by, w.user.ID, hash, false)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// flip is another character of base64url.
func flip(c string) string {
	if c == "A" {
		return "B"
	}
	return "A"
}

// TestTicketIsOfOneUser: what one user was given is good for no other.
func TestTicketIsOfOneUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	secret, _ := w.withTOTP()
	hash, err := hasher(t, 64).Hash(t.Context(), right)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.store.CreateUser(t.Context(), w.by, keystore.NewUser{Email: "bob@example.com", PasswordHash: hash}); err != nil {
		t.Fatal(err)
	}
	w.advance(30 * time.Second)
	if s, err := w.withTicket(w.ticket(), w.code(secret)); err != nil || s.User.ID != w.user.ID {
		t.Errorf("signed in %s, %v", s.User.ID, err)
	}
}

func TestTicketsCountAsAttempts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(o *signin.Options) { o.PerEmail = signin.Rate{PerSecond: .001, Burst: 5} })
	w.withTOTP() // one attempt
	ticket := w.ticket()
	for range 3 {
		if _, err := w.withTicket(ticket, "000000"); !errors.Is(err, signin.ErrCodeNeeded) {
			t.Fatalf("got %v", err)
		}
	}
	var many *signin.TooManyError
	if _, err := w.withTicket(ticket, "000000"); !errors.As(err, &many) {
		t.Errorf("got %v", err)
	}
}

// TestBadTicketCostsAsMuchForAnybody: it does not tell whose address it names.
func TestBadTicketCostsAsMuchForAnybody(t *testing.T) {
	w := newWorld(t, func(o *signin.Options) { o.Passwords = hasher(t, 64<<10) })
	hash, err := hasher(t, 64<<10).Hash(t.Context(), right)
	if err == nil {
		err = w.store.SetPassword(t.Context(), w.by, w.user.ID, hash, false)
	}
	if err != nil {
		t.Fatal(err)
	}
	took := func(ticket string) time.Duration {
		shortest := time.Hour
		for range 3 {
			begun := time.Now()
			if _, err := w.withTicket(ticket, "000000"); !errors.Is(err, signin.ErrRefused) {
				t.Fatal(err)
			}
			shortest = min(shortest, time.Since(begun))
		}
		return shortest
	}
	begun := time.Now()
	if _, err := w.SignIn(t.Context(), signin.Proof{Email: "bob@example.com", Password: "wrong"}, home); !errors.Is(err, signin.ErrRefused) {
		t.Fatal(err)
	}
	password := time.Since(begun)
	for _, ticket := range []string{"AAAA", forged("bob@example.com"), forged(email)} {
		if got := took(ticket); got < password/16 {
			t.Errorf("%s took %s, a wrong password %s", ticket, got, password)
		}
	}
}

// forged is a ticket in form, for anybody.
func forged(email string) string {
	return base64.RawURLEncoding.EncodeToString(append(make([]byte, 8+32), email...))
}
