package signin_test

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"gatehouse/proxy/dashboard/signin"
)

func usual(o *signin.Options) {
	o.PerEmail, o.PerAddress, o.PerPair, o.PerUser = signin.Rate{}, signin.Rate{}, signin.Rate{}, signin.Rate{}
}

// TestOneStrangerLocksNobodyOut: who knows an e-mail address keeps its owner
// neither from signing in nor from changing the password.
func TestOneStrangerLocksNobodyOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, usual)
	ss := w.goesOn(w.signIn(right, ""))
	var many *signin.TooManyError
	for range 40 {
		_, err := w.SignIn(t.Context(), signin.Proof{Email: email, Password: "x"}, signin.From{Client: netip.MustParseAddr("198.51.100.66")})
		_ = errors.As(err, &many)
	}
	if many == nil {
		t.Error("the stranger was not limited")
	}
	if n := strings.Count(w.log.String(), "attempts to sign in limited"); n != 2 { // by both limits that the stranger reached
		t.Errorf("logged %d times", n)
	}
	w.signIn(right, "")
	if _, err := w.ChangePassword(t.Context(), ss, home, right, better); err != nil {
		t.Errorf("got %v", err)
	}
}

func TestProvingThePasswordAgainIsLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, usual)
	ss := w.goesOn(w.signIn(right, ""))
	var many *signin.TooManyError
	for i := range 11 {
		_, err := w.ChangePassword(t.Context(), ss, home, "wrong", better)
		if errors.As(err, &many) != (i == 10) {
			t.Errorf("%d: got %v", i, err)
		}
	}
	w.signIn(right, "")
}

// TestLimitsOfManyAddresses: those of one e-mail address from everywhere, and
// of the addresses of one customer.
func TestLimitsOfManyAddresses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		address, email string
		most           int
	}{
		"one e-mail address":    {"203.0.113.%d", email, 100},
		"one IPv6 /48":          {"2001:db8:1:%d::1", "user%d@example.com", 120},
		"one e-mail, many /48s": {"2001:db8:%d::1", email, 100},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, usual)
			var many *signin.TooManyError
			for i := range test.most + 1 {
				who := test.email
				if strings.Contains(who, "%d") {
					who = fmt.Sprintf(who, i)
				}
				_, err := w.SignIn(t.Context(), signin.Proof{Email: who, Password: "x"}, signin.From{Client: netip.MustParseAddr(fmt.Sprintf(test.address, i))})
				if errors.As(err, &many) != (i == test.most) {
					t.Fatalf("%d: got %v", i, err)
				}
			}
		})
	}
}
