package password_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"gatehouse/proxy/password"
)

// cheap is a cost for tests.
func cheap() password.Cost { return password.Cost{MemoryKiB: 64, Passes: 1, Lanes: 1} }

func hasher(t testing.TB, cost password.Cost, atATime int) *password.Hasher {
	t.Helper()
	h, err := password.NewHasher(cost, atATime)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestWhichPasswordsMayBeChosen(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, password string
		want           error
	}{
		{"twelve characters", "kV9 mutton ü", nil},
		{"eleven characters", "kV9 mutton!", password.ErrTooShort},
		{"eleven characters in more bytes", strings.Repeat("üx", 5) + "ü", password.ErrTooShort},
		{"128 characters", strings.Repeat("aé", 64), nil},
		{"129 characters", strings.Repeat("aé", 64) + "b", password.ErrTooLong},
		{"spaces around count", "  kV9 mutton", nil},
		{"the e-mail", "ada@example.com", password.ErrEmail},
		{"the e-mail, in another case and spaced", " Ada@Example.COM ", password.ErrEmail},
		{"more than the e-mail", "ada@example.com!", nil},
		{"a common one", "password1234", password.ErrCommon},
		{"a common one, in another case", "PassWord1234", password.ErrCommon},
		{"one character", strings.Repeat("x", 20), password.ErrCommon},
		{"invalid UTF-8", "kV9 mutton \xff\xff", password.ErrText},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if err := password.Check(test.password, "ada@example.com"); !errors.Is(err, test.want) {
				t.Errorf("got %v, want %v", err, test.want)
			}
		})
	}
}

func TestGeneratedPasswordsMayBeChosenAndDiffer(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 100 {
		p := password.Generate()
		if err := password.Check(p, "ada@example.com"); err != nil || len(p) != 23 || seen[p] {
			t.Fatalf("%d characters, seen before: %v: %v", len(p), seen[p], err)
		}
		seen[p] = true
	}
}

func TestCodesAreReadHoweverTheyAreTyped(t *testing.T) {
	t.Parallel()
	for range 100 {
		code := password.Code(4, 4)
		for _, typed := range []string{
			code, strings.ToUpper(code), strings.ToLower(code), strings.ToUpper(code[:1]) + code[1:], " " + code + "\n",
			strings.ReplaceAll(code, "-", ""), strings.ReplaceAll(code, "-", " - "), strings.ReplaceAll(code, "-", "\u2013"),
		} {
			if got := password.Respell(typed, 4); got != code {
				t.Errorf("%q is read as %q, want %q", typed, got, code)
			}
		}
		if password.Respell(code[1:], 4) == code || password.Respell(code+"2", 4) == code {
			t.Errorf("another code is read as %q", code)
		}
	}
}

func TestOnlyThePasswordMatchesItsHash(t *testing.T) {
	t.Parallel()
	h := hasher(t, cheap(), 2)
	long := strings.Repeat("a", 128)
	for _, right := range []string{"kV9 mutton chop", long, strings.Repeat("\U0001F600", 128)} {
		phc, err := h.Hash(t.Context(), right)
		if err != nil {
			t.Fatal(err)
		}
		for _, given := range []string{right, right + "x", right[:len(right)-1], " " + right, "", strings.Repeat("b", 10_000)} {
			matches, outdated, err := h.Match(t.Context(), given, phc)
			if err != nil || matches != (given == right) || outdated {
				t.Errorf("%d bytes: got %v, %v, %v", len(given), matches, outdated, err)
			}
		}
		again, err := h.Hash(t.Context(), right)
		if err != nil || again == phc {
			t.Errorf("the same password has the same hash twice (%v)", err)
		}
	}
}

func TestHashOfAnotherCostMatchesAndIsOutdated(t *testing.T) {
	t.Parallel()
	old := hasher(t, cheap(), 1)
	phc, err := old.Hash(t.Context(), "kV9 mutton chop")
	if err != nil {
		t.Fatal(err)
	}
	dearer := hasher(t, password.Cost{MemoryKiB: 128, Passes: 1, Lanes: 1}, 1)
	if matches, outdated, err := dearer.Match(t.Context(), "kV9 mutton chop", phc); !matches || !outdated || err != nil {
		t.Errorf("got %v, %v, %v", matches, outdated, err)
	}
}

func TestNobodysPasswordNeverMatches(t *testing.T) {
	t.Parallel()
	h := hasher(t, cheap(), 1)
	for _, given := range []string{"", "kV9 mutton chop"} {
		if matches, _, err := h.Match(t.Context(), given, ""); matches || err != nil {
			t.Errorf("got %v, %v", matches, err)
		}
	}
}

func TestHashingWaitsForItsTurn(t *testing.T) {
	t.Parallel()
	h := hasher(t, password.DefaultCost(), 1)
	busy := make(chan error)
	go func() {
		var err error
		for range 8 {
			if _, hashErr := h.Hash(context.Background(), "kV9 mutton chop"); hashErr != nil {
				err = hashErr
			}
		}
		busy <- err
	}()
	ended, end := context.WithCancel(t.Context())
	end()
	refused := 0
	for range 1000 {
		if _, err := h.Hash(ended, "x"); errors.Is(err, context.Canceled) {
			refused++
			break
		}
	}
	if refused == 0 {
		t.Error("an ended request was never refused")
	}
	if err := <-busy; err != nil {
		t.Error(err)
	}
}

func TestHashesAndHashersDoNotPrintSecrets(t *testing.T) {
	t.Parallel()
	phc, err := hasher(t, cheap(), 1).Hash(t.Context(), "kV9 mutton chop")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := password.ParseHash(phc)
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []string{fmt.Sprint(parsed), fmt.Sprintf("%+v", parsed), fmt.Sprintf("%#v", parsed)} {
		if said != "hash(redacted)" {
			t.Errorf("printed %s", said)
		}
	}
}

func TestUnbearableCostsAreRefused(t *testing.T) {
	t.Parallel()
	const rest = "$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	if _, err := password.ParseHash("$argon2id$v=19$m=19456,t=2,p=1" + rest); err != nil {
		t.Fatal(err)
	}
	for _, head := range []string{
		"$argon2id$v=19$m=4294967295,t=2,p=1", "$argon2id$v=19$m=19456,t=4000000,p=1", "$argon2id$v=19$m=19456,t=2,p=255", "$argon2id$v=19$m=19456,t=0,p=1",
		"$argon2id$v=19$m=19456,t=2,p=0", "$argon2id$v=19$m=1,t=2,p=1", "$argon2i$v=19$m=19456,t=2,p=1", "$argon2id$v=16$m=19456,t=2,p=1",
		"$argon2id$v=19$m=19456,t=2,p=1,x=1", "$argon2id$v=19$m=019456,t=2,p=1", "$argon2id$v=19$ m=19456,t=2,p=1", "",
	} {
		if _, err := password.ParseHash(head + rest); !errors.Is(err, password.ErrHash) {
			t.Errorf("%s: got %v", head, err)
		}
	}
}

// FuzzParseHash: what is accepted has one spelling, and can be afforded.
func FuzzParseHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0c2FsdB$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("$argon2id$v=19$m=+8,t=2,p=1$$")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := password.ParseHash(s)
		if err != nil {
			return
		}
		if h.PHC() != s {
			t.Errorf("accepted %q, which is spelt %q", s, h.PHC())
		}
		if h.Cost.MemoryKiB > 256<<10 || h.Cost.Passes > 16 || h.Cost.Lanes > 16 {
			t.Errorf("accepted the cost %+v", h.Cost)
		}
	})
}
