package signin

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"

	"gatehouse/keystore"
	"gatehouse/proxy/password"
)

// The parameters of RFC 6238 that every authenticator knows.
const (
	totpPeriod    = 30 // seconds
	totpSkew      = 1  // periods that a clock may be wrong by
	recoveryCodes = 10
	recoveryGroup = 4 // characters between dashes
)

// totpStep returns the time step whose code this is: one around now, later
// than the last that was used; false when it is none of them. Every step is
// compared, in constant time.
func totpStep(secret, code string, used int64, now time.Time) (step int64, ok bool) {
	code = strings.ReplaceAll(code, " ", "")
	current := now.Unix() / totpPeriod
	for at := current - totpSkew; at <= current+totpSkew; at++ {
		want, err := hotp.GenerateCodeCustom(secret, uint64(at), hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}) // #nosec G115 -- a time since 1970
		if err != nil {
			return 0, false
		}
		if subtle.ConstantTimeCompare([]byte(want), []byte(code)) == 1 && at > used {
			step, ok = at, true
		}
	}
	return step, ok
}

// newRecovery returns codes that replace a code of the authenticator, once
// each, and their hashes. They have 80 random bits, so that a plain hash will do.
func newRecovery() (codes, hashes []string) {
	for range recoveryCodes {
		code := password.Code(4, recoveryGroup)
		codes, hashes = append(codes, code), append(hashes, recoveryHash(code))
	}
	return codes, hashes
}

func recoveryHash(code string) string {
	sum := sha256.Sum256([]byte(password.Respell(code, recoveryGroup)))
	return hex.EncodeToString(sum[:])
}

// useCode returns the credentials that are left when the code was used, and
// false when it is none that works.
func useCode(c keystore.Credentials, code string, now time.Time) (keystore.Credentials, bool) {
	if step, ok := totpStep(c.TOTPSecret, code, c.TOTPStep, now); ok {
		c.TOTPStep = step
		return c, true
	}
	if at := slices.Index(c.Recovery, recoveryHash(code)); at >= 0 {
		c.Recovery = slices.Delete(slices.Clone(c.Recovery), at, at+1)
		return c, true
	}
	return c, false
}
