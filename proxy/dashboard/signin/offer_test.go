package signin_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"gatehouse/proxy/dashboard/signin"
)

func TestAuthenticatorIsSetUpWithPasswordAndCode(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := w.signIn(right, "")
	ss := w.goesOn(w.signIn(right, ""))
	offer := w.offer(ss)
	if !strings.HasPrefix(offer.URI, "otpauth://totp/Gate%20&%20house:ada@example.com?issuer=Gate+%26+house&secret="+offer.Secret) || len(offer.Secret) != 32 {
		t.Errorf("offered %s", offer.URI)
	}
	if again, err := w.OfferTOTP(t.Context(), ss, home, "Gate & house", offer.Sealed); err != nil || again.Secret != offer.Secret {
		t.Errorf("an offer that is good was not kept: %v", err)
	}
	for name, test := range map[string]struct {
		n    signin.NewAuthenticator
		want error
	}{
		"wrong password": {signin.NewAuthenticator{Password: "wrong", Sealed: offer.Sealed, Code: w.code(offer.Secret)}, signin.ErrRefused},
		"wrong code":     {signin.NewAuthenticator{Password: right, Sealed: offer.Sealed, Code: "000000"}, signin.ErrWrongCode},
		"no offer":       {signin.NewAuthenticator{Password: right, Code: "000000"}, signin.ErrOfferOver},
	} {
		if _, _, err := w.EnableTOTP(t.Context(), ss, home, test.n); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	w.signIn(right, "")
	n := signin.NewAuthenticator{Password: right, Sealed: offer.Sealed, Code: w.code(offer.Secret)}
	if text := fmt.Sprintf("%v %+v %#v %v %#v", n, n, n, offer, offer); strings.Contains(text, offer.Secret) || strings.Contains(text, offer.Sealed) {
		t.Errorf("printed %s", text)
	}
	recovery, fresh, err := w.EnableTOTP(t.Context(), ss, home, n)
	if err != nil {
		t.Fatal(err)
	}
	w.over("another session", other)
	ss = w.goesOn(fresh)
	if _, err := w.OfferTOTP(t.Context(), ss, home, "Gatehouse", offer.Sealed); !errors.Is(err, signin.ErrHasTOTP) {
		t.Errorf("a second offer: got %v", err)
	}
	if _, _, err := w.EnableTOTP(t.Context(), ss, home, n); !errors.Is(err, signin.ErrHasTOTP) {
		t.Errorf("a second authenticator: got %v", err)
	}
	w.advance(30 * time.Second)
	for name, test := range map[string]struct {
		password, code string
		want           error
	}{
		"wrong password": {"wrong", w.code(offer.Secret), signin.ErrRefused}, "wrong code": {right, "000000", signin.ErrWrongCode},
		"no code": {right, "", signin.ErrWrongCode},
	} {
		if _, err := w.DisableTOTP(t.Context(), ss, home, test.password, test.code); !errors.Is(err, test.want) {
			t.Errorf("removed with %s: got %v", name, err)
		}
	}
	if _, err := w.DisableTOTP(t.Context(), ss, home, right, recovery[0]); err != nil {
		t.Fatal(err)
	}
	w.signIn(right, "")
}

// TestOfferIsForOneSessionOfOneUser: nobody can make anybody confirm a secret
// that they know.
func TestOfferIsForOneSessionOfOneUser(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(w *world, sealed string) string{
		"of another session": func(w *world, _ string) string { return w.offer(w.goesOn(w.signIn(right, ""))).Sealed },
		"half an hour old":   func(w *world, sealed string) string { w.advance(30 * time.Minute); w.signIn(right, ""); return sealed },
		"with another secret": func(_ *world, sealed string) string {
			return sealed[:len(sealed)-3] + "AAA"
		},
		"no seal":  func(*world, string) string { return "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ" },
		"too long": func(_ *world, sealed string) string { return strings.Repeat(sealed, 40) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, func(o *signin.Options) { o.Idle = time.Hour })
			ss := w.goesOn(w.signIn(right, ""))
			offer := w.offer(ss)
			sealed := spoil(w, offer.Sealed)
			_, _, err := w.EnableTOTP(t.Context(), ss, home, signin.NewAuthenticator{Password: right, Sealed: sealed, Code: w.code(offer.Secret)})
			if !errors.Is(err, signin.ErrOfferOver) {
				t.Errorf("got %v", err)
			}
		})
	}
}
