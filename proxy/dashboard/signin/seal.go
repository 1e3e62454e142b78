package signin

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"strconv"
	"time"

	"gatehouse/keystore"
)

// What is sealed for a user says what it is for: a seal of one purpose is none
// of another.
const (
	sealForTicket = "gatehouse: password was right"
	sealForOffer  = "gatehouse: secret of an authenticator"
)

// maxSealed bounds what is read of a form.
const maxSealed = 1024

// seal is something that a page carries from one form to the next, and that
// this user alone can have been given, until a time. Its MAC has a key that is
// derived from the user's password hash, so that no node needs a secret of its
// own and another password makes it void.
type seal struct {
	payload string
	ends    int64 // Unix seconds
	mac     []byte
}

// newSeal seals the payload for the user, and for what it is bound to.
func newSeal(u *keystore.SignInUser, purpose, payload string, ends time.Time, bound string) (seal, error) {
	s := seal{payload: payload, ends: ends.Unix()}
	var err error
	s.mac, err = s.sum(u, purpose, bound)
	return s, err
}

// sum is the MAC. Each part has its length in front, so that no two lists of
// parts read the same.
func (s seal) sum(u *keystore.SignInUser, purpose, bound string) ([]byte, error) {
	key, err := hkdf.Key(sha256.New, []byte(u.Credentials.PasswordHash), nil, purpose, sha256.Size)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	for _, part := range []string{
		s.payload, strconv.FormatInt(s.ends, 10), string(u.User.Account), string(u.User.ID), strconv.FormatInt(u.User.Epoch, 10), bound,
	} {
		_, _ = mac.Write(binary.BigEndian.AppendUint64(nil, uint64(len(part))))
		_, _ = mac.Write([]byte(part))
	}
	return mac.Sum(nil), nil
}

// genuine reports whether newSeal made it for this user as it is now, and it
// has not ended. A user without a password has no key, and no seals.
func (s seal) genuine(u *keystore.SignInUser, purpose, bound string, now time.Time) bool {
	want, err := s.sum(u, purpose, bound)
	return err == nil && hmac.Equal(want, s.mac) && now.Unix() < s.ends && u.Credentials.PasswordHash != ""
}

// String spells it for a form.
func (s seal) String() string {
	raw := binary.BigEndian.AppendUint64(nil, uint64(s.ends)) // #nosec G115 -- read back as it is
	raw = append(append(raw, s.mac...), s.payload...)
	return base64.RawURLEncoding.EncodeToString(raw)
}

// readSeal reads what String wrote. It says nothing about who wrote it.
func readSeal(text string) (seal, bool) {
	const head = 8 + sha256.Size
	if len(text) > maxSealed {
		return seal{}, false
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < head {
		return seal{}, false
	}
	return seal{ends: int64(binary.BigEndian.Uint64(raw)), mac: raw[8:head], payload: string(raw[head:])}, true // #nosec G115 -- likewise
}
