package keystore_test

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatehouse/keystore"
)

const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func mint(t testing.TB, prefix string) keystore.Token {
	t.Helper()
	token, err := keystore.Mint(prefix, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func TestMintedToken(t *testing.T) {
	for _, prefix := range []string{"gk_", "gk", "acme_v2_", ""} {
		token := mint(t, prefix)
		secret := token.Reveal()
		if len(secret) != 64 || !strings.HasPrefix(secret, prefix) {
			t.Errorf("prefix %q: got a token of %d characters", prefix, len(secret))
		}
		if rest := strings.Trim(strings.TrimPrefix(secret, prefix), alphabet); rest != "" {
			t.Errorf("prefix %q: %q is not of the alphabet", prefix, rest)
		}
		if got := checksumOf(secret[:58]); got != secret[58:] {
			t.Errorf("prefix %q: checksum %q, want %q", prefix, secret[58:], got)
		}
		if got, want := keystore.PreviewOf(token, prefix), secret[:len(prefix)+4]+"…"+secret[60:]; got != want {
			t.Errorf("preview %q, want %q", got, want)
		}
		parsed, err := keystore.ParseToken(prefix, secret)
		if err != nil {
			t.Errorf("prefix %q: a minted token is refused", prefix)
		}
		if parsed.Reveal() != "" {
			t.Error("a token that was shown to us can be revealed again")
		}
	}
}

// checksumOf computes a token's checksum in another way than the code does.
func checksumOf(body string) string {
	n := new(big.Int).SetUint64(uint64(crc32.ChecksumIEEE([]byte(body))))
	base, digit := big.NewInt(62), new(big.Int)
	var out []byte
	for range 6 {
		n.DivMod(n, base, digit)
		out = append([]byte{alphabet[digit.Int64()]}, out...)
	}
	return string(out)
}

// The hash of a parsed token is what its record is called.
func TestTokenIsFoundByItsSHA256(t *testing.T) {
	w, m := miniWorld(t)
	n := w.node()
	_, token := n.key(n.account("acme"))
	parsed, err := keystore.ParseToken("gk_", token.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	n.works(parsed)
	if !m.Exists(n.recordName(token)) {
		t.Errorf("there is no %s", n.recordName(token))
	}
}

func TestMalformedTokensAreRefused(t *testing.T) {
	secret := mint(t, "gk_").Reveal()
	for name, s := range map[string]string{
		"empty": "", "the prefix alone": "gk_", "one short": secret[:63], "one long": secret + "0", "a space behind": secret[:63] + " ",
		"another prefix": mint(t, "gx_").Reveal(), "prefix in capitals": "GK_" + secret[3:], "no prefix": mint(t, "").Reveal(),
		"a newline": secret + "\n", "NUL": "gk_" + strings.Repeat("\x00", 61), "not ASCII": "gk_" + strings.Repeat("é", 30) + "0",
		"turned round": reverse(secret), "twice": secret + secret,
		"another alphabet": withChecksum("gk_" + strings.Repeat("-", 55)), "bytes of a letter": withChecksum(secret[:56] + "é"),
	} {
		if _, err := keystore.ParseToken("gk_", s); !errors.Is(err, keystore.ErrBadToken) || err.Error() != keystore.ErrBadToken.Error() {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func withChecksum(body string) string { return body + checksumOf(body) }

func reverse(s string) string {
	var b strings.Builder
	for i := len(s) - 1; i >= 0; i-- {
		b.WriteByte(s[i])
	}
	return b.String()
}

func TestEverySingleChangedCharacterIsRefused(t *testing.T) {
	secret := mint(t, "gk_").Reveal()
	for i := range len(secret) {
		for c := range 256 {
			changed := secret[:i] + string([]byte{byte(c)}) + secret[i+1:]
			if changed == secret {
				continue
			}
			if _, err := keystore.ParseToken("gk_", changed); err == nil {
				t.Errorf("character %d changed to %q: accepted", i, byte(c))
			}
		}
	}
	for i := range len(secret) - 1 {
		swapped := secret[:i] + string([]byte{secret[i+1], secret[i]}) + secret[i+2:]
		if _, err := keystore.ParseToken("gk_", swapped); err == nil && swapped != secret {
			t.Errorf("characters %d and %d swapped: accepted", i, i+1)
		}
	}
}

// No character is likelier than another. With 110,000 draws the counts stay
// within six standard deviations; a plain remainder of a byte would be 25 off.
func TestTokensAreDrawnEvenly(t *testing.T) {
	const tokens, drawn = 2000, 64 - 3 - 6
	var counts [256]int
	seen := map[string]bool{}
	for range tokens {
		secret := mint(t, "gk_").Reveal()
		if seen[secret] {
			t.Fatal("the same token twice")
		}
		seen[secret] = true
		for i := 3; i < 58; i++ {
			counts[secret[i]]++
		}
	}
	const mean = float64(tokens*drawn) / 62
	for _, c := range []byte(alphabet) {
		if off := float64(counts[c]) - mean; off*off > 36*mean {
			t.Errorf("%q was drawn %d times, want about %.0f", c, counts[c], mean)
		}
	}
}

// Bytes that would make some characters likelier are not used.
func TestMintUsesWhatItDraws(t *testing.T) {
	noise := append(bytes.Repeat([]byte{248, 255, 251}, 50), bytes.Repeat([]byte{0, 61, 62, 247}, 50)...)
	token, err := keystore.Mint("gk_", bytes.NewReader(noise))
	if err != nil {
		t.Fatal(err)
	}
	body := token.Reveal()[3:58]
	if rest := strings.NewReplacer("0", "", "z", "").Replace(body); rest != "" {
		t.Errorf("body %q is not made of the good bytes alone", body)
	}
	if _, err := keystore.Mint("gk_", bytes.NewReader(nil)); err == nil {
		t.Error("a token was made without randomness")
	}
}

// However a token is printed, by itself or in something, it does not show.
func TestTokenNeverPrintsItself(t *testing.T) {
	token := mint(t, "gk_")
	type holder struct {
		Token   keystore.Token
		Pointer *keystore.Token
		Slice   []keystore.Token
		Map     map[string]keystore.Token
		Any     any
	}
	type hidden struct{ token keystore.Token }
	held := holder{token, &token, []keystore.Token{token}, map[string]keystore.Token{"a": token}, token}
	var out bytes.Buffer
	for _, v := range []any{token, &token, held, &held, []any{token}, hidden{token}, &hidden{token}, errors.Join(fmt.Errorf("with %v", token))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%t"} {
			fmt.Fprintf(&out, verb+"\n", v)
		}
		fmt.Fprintln(&out, v)
		if raw, err := json.Marshal(v); err == nil {
			out.Write(raw)
		}
	}
	if raw, err := json.Marshal(map[keystore.Token]int{token: 1}); err == nil {
		out.Write(raw)
	}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(&out)), zap.DebugLevel)
	log := zap.New(core)
	log.Info("zap", zap.Any("token", token), zap.Any("pointer", &token), zap.Stringer("stringer", token), zap.Reflect("reflect", held), zap.Any("hidden", hidden{token}))
	log.Sugar().Infow("sugar", "token", token, "held", held)
	log.Sugar().Infof("%v %+v", token, held)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("slog", "token", token, "held", held)
	slog.New(slog.NewTextHandler(&out, nil)).Info("slog", "token", token, "held", held, "hidden", hidden{token})

	printed := out.String()
	secret := token.Reveal()
	for name, s := range map[string]string{"secret": secret, "its body": secret[7:40], "its hex": hex.EncodeToString([]byte(secret)), "its HEX": strings.ToUpper(hex.EncodeToString([]byte(secret)))} {
		if at := strings.Index(printed, s); at >= 0 {
			t.Errorf("%s is printed: …%s", name, printed[max(0, at-120):at])
		}
	}
	if !strings.Contains(printed, "token(redacted)") {
		t.Error("nothing says that a token was left out")
	}
}

// Nothing that is stored or logged contains a token, or enough to guess one.
func TestNothingStoredContainsTheToken(t *testing.T) {
	onEachStore(t, func(t *testing.T, w *world) {
		var logged bytes.Buffer
		core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(&logged)), zap.DebugLevel)
		n := w.node(func(o *keystore.Options) { o.Log = zap.New(core) })
		person := n.account("acme")
		k, first := n.key(person)
		n.works(first)
		next, second, err := n.Regenerate(t.Context(), person, k.ID, 0)
		if err != nil {
			t.Fatal(err)
		}
		n.update(person, next.ID, keystore.Update{Name: ptr("renamed")})
		n.works(second)
		everything := fmt.Sprint(dump(t, keystore.ClientOf(n.Store), w.options.Prefix))
		if !strings.Contains(everything, "renamed") {
			t.Fatalf("this is not everything: %s", everything)
		}
		if err := n.Close(); err != nil {
			t.Fatal(err)
		}
		everything += logged.String()
		if w.kind == "embedded" {
			folder := filepath.Dir(w.options.EmbeddedFile)
			files, err := os.ReadDir(folder)
			if err != nil || len(files) < 1 {
				t.Fatalf("%v, %v", files, err)
			}
			for _, file := range files {
				raw, err := os.ReadFile(filepath.Join(folder, file.Name()))
				if err != nil {
					t.Fatal(err)
				}
				everything += string(raw)
			}
		}
		for _, token := range []keystore.Token{first, second} {
			for at := 3; at+8 <= 60; at++ { // the preview has four characters
				if part := token.Reveal()[at : at+8]; strings.Contains(everything, part) {
					t.Fatalf("%q of the token is stored", part)
				}
			}
		}
	})
}

// Whatever is accepted has the length, the prefix, the alphabet and the
// checksum of a token, computed here in another way; and no other string that
// differs in one character is accepted.
func FuzzParseToken(f *testing.F) {
	f.Add("gk_", mint(f, "gk_").Reveal(), 5, byte('0'))
	f.Add("", mint(f, "").Reveal(), 63, byte('z'))
	f.Add("acme_v2_", mint(f, "acme_v2_").Reveal(), 0, byte('b'))
	f.Add("gk_", "gk_"+strings.Repeat("0", 61), 10, byte('1'))
	f.Add("gk_", strings.Repeat("é", 32), 1, byte(0xff))
	f.Add("gk_", withChecksum("gk_"+strings.Repeat("_", 55)), 2, byte('q'))
	f.Add("12345678", withChecksum(strings.Repeat("12345678", 7)+"00"), 7, byte('9'))
	f.Fuzz(func(t *testing.T, prefix, s string, at int, c byte) {
		if len(prefix) > 8 {
			return // the configuration allows 2 to 8 characters
		}
		_, err := keystore.ParseToken(prefix, s)
		good := len(s) == 64 && strings.HasPrefix(s, prefix) &&
			strings.Trim(s[len(prefix):], alphabet) == "" && checksumOf(s[:58]) == s[58:]
		if (err == nil) != good {
			t.Fatalf("%q: got %v, but it is a token: %v", s, err, good)
		}
		if err != nil {
			return
		}
		i := int(uint(at) % 64)
		changed := s[:i] + string([]byte{c}) + s[i+1:]
		if _, err := keystore.ParseToken(prefix, changed); err == nil && changed != s {
			t.Fatalf("%q and %q are both accepted", s, changed)
		}
	})
}
