package keystore

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"net/netip"
	"time"

	"gatehouse/policy"
)

// compactForm is the first byte of everything that is stored compact. No JSON
// text and no index entry in text begins with it.
const compactForm = 0x02

// The flags of a compact key record. Whatever a record does not have, a flag
// says so: nothing means something by being absent.
const (
	flagActive byte = 1 << iota
	flagNeverExpires
	flagAllSubaccounts
	flagAnyAddress
	flagReplaced
	flagTextID  // the id is a text, not a UUID
	flagTextUID // the uid of the account is a text, not a UUID
	flagUnknown // from here on there are none
)

// hashNamed is how much of its token's hash a compact record repeats, so that
// one that was delivered to the wrong reader is refused. It is no secret and
// proves nothing: 128 bits are never the same by accident.
const hashNamed = 16

// encodeCompactKey encodes a key as
//
//	compactForm, flags, the first 16 bytes of the token's hash, id, account,
//	account uid, name, permissions, subaccounts (unless all), addresses (unless
//	any), created, expiry (unless never), replaced (if it was), preview.
//
// Permissions are texts, and no numbers of the catalogue: those would mean
// something else once the configuration changes.
func encodeCompactKey(k storedKey) (string, error) {
	b, err := appendCompactKey(make([]byte, 0, 256), &k)
	if err != nil {
		return "", fmt.Errorf("encode key %s: %w", k.key.ID, err)
	}
	return string(b), nil
}

func appendCompactKey(b []byte, k *storedKey) ([]byte, error) {
	hash, err := hex.DecodeString(k.tokenHash)
	if err != nil || !isHash(k.tokenHash) {
		return nil, fmt.Errorf("its token's hash is %q", k.tokenHash)
	}
	if k.key.Expiry.Never() && k.key.Replaced() {
		return nil, fmt.Errorf("it was replaced and never expires")
	}
	id, idIsUUID := rawUUID(string(k.key.ID))
	uid, uidIsUUID := rawUUID(k.accountUID)
	b = append(b, compactForm, k.flags(idIsUUID, uidIsUUID))
	b = append(b, hash[:hashNamed]...)
	if b, err = appendIDOr(b, id, idIsUUID, string(k.key.ID)); err != nil {
		return nil, err
	}
	if b, err = appendText(b, string(k.key.Account)); err != nil {
		return nil, err
	}
	if b, err = appendIDOr(b, uid, uidIsUUID, k.accountUID); err != nil {
		return nil, err
	}
	if b, err = appendText(b, k.key.Name); err != nil {
		return nil, err
	}
	if b, err = k.appendRights(b); err != nil {
		return nil, err
	}
	b = binary.AppendVarint(b, k.key.CreatedAt.Unix())
	if !k.key.Expiry.Never() {
		b = binary.AppendVarint(b, k.key.Expiry.Unix())
	}
	if k.key.Replaced() {
		b = binary.AppendVarint(b, k.key.ReplacedAt.Unix())
	}
	return appendText(b, k.key.Preview)
}

func (k *storedKey) flags(idIsUUID, uidIsUUID bool) byte {
	var flags byte
	for _, f := range []struct {
		is   bool
		flag byte
	}{
		{k.key.Active, flagActive},
		{k.key.Expiry.Never(), flagNeverExpires},
		{k.key.Subaccounts.All(), flagAllSubaccounts},
		{k.key.Addresses.Any(), flagAnyAddress},
		{k.key.Replaced(), flagReplaced},
		{!idIsUUID, flagTextID},
		{!uidIsUUID, flagTextUID},
	} {
		if f.is {
			flags |= f.flag
		}
	}
	return flags
}

func appendIDOr(b []byte, raw [uuidLength]byte, is bool, text string) ([]byte, error) {
	if is {
		return append(b, raw[:]...), nil
	}
	return appendText(b, text)
}

// appendRights appends what the key may do, to what, and from where.
func (k *storedKey) appendRights(b []byte) ([]byte, error) {
	var err error
	b = binary.AppendUvarint(b, uint64(len(k.key.Permissions)))
	for _, p := range k.key.Permissions {
		if b, err = appendText(b, string(p)); err != nil {
			return nil, err
		}
	}
	if !k.key.Subaccounts.All() {
		b = binary.AppendUvarint(b, uint64(len(k.key.Subaccounts.IDs())))
		for _, id := range k.key.Subaccounts.IDs() {
			raw, ok := rawUUID(string(id))
			if !ok {
				return nil, fmt.Errorf("subaccount %q is not a UUID", id)
			}
			b = append(b, raw[:]...)
		}
	}
	if !k.key.Addresses.Any() {
		b = binary.AppendUvarint(b, uint64(len(k.key.Addresses.Prefixes())))
		for _, p := range k.key.Addresses.Prefixes() {
			if b, err = appendPrefix(b, p); err != nil {
				return nil, err
			}
		}
	}
	return b, nil
}

// isCompact reports whether something stored is in the compact form.
func isCompact(raw string) bool { return raw != "" && raw[0] == compactForm }

// decodeCompactKey reads what encodeCompactKey wrote, and nothing else: of
// every key there is one encoding. Texts of the key are parts of raw.
func decodeCompactKey(raw, tokenHash string) (*storedKey, error) {
	u := unpacker{rest: raw}
	form, flags, named := u.byte(), u.byte(), u.bytes(hashNamed)
	if form != compactForm || flags >= flagUnknown {
		u.fail()
	}
	k := &storedKey{tokenHash: tokenHash}
	id, idIsUUID := u.idOr(flags&flagTextID != 0)
	k.key.Account = policy.AccountID(u.text())
	uid, uidIsUUID := u.idOr(flags&flagTextUID != 0)
	k.key.Name = u.text()
	k.key.Active = flags&flagActive != 0
	u.rights(&k.key, flags)
	k.key.CreatedAt = time.Unix(u.varint(), 0).UTC()
	k.key.Expiry = policy.NeverExpires()
	if flags&flagNeverExpires == 0 {
		k.key.Expiry = policy.ExpiresAt(u.varint())
	}
	if flags&flagReplaced != 0 {
		k.key.ReplacedAt = time.Unix(u.varint(), 0).UTC()
	}
	k.key.Preview = u.text()
	if !u.whole() || k.key.Expiry.Never() && k.key.Replaced() || k.key.Replaced() != (flags&flagReplaced != 0) {
		return nil, fmt.Errorf("%w of a key: it is cut off, or not in the compact form", errRecord)
	}
	k.key.ID, k.accountUID = bothIDs(id, idIsUUID, uid, uidIsUUID)
	var want [hashNamed]byte
	if _, err := hex.Decode(want[:], []byte(tokenHash[:min(len(tokenHash), 2*hashNamed)])); err != nil || string(want[:]) != named {
		return nil, fmt.Errorf("%w of key %s: it belongs to another token", errRecord, k.key.ID)
	}
	return k, nil
}

// idOr returns an id: the bytes of a UUID, or a text that is not one.
func (u *unpacker) idOr(text bool) (id string, isUUID bool) {
	if !text {
		return u.bytes(uuidLength), true
	}
	id = u.text()
	if _, is := rawUUID(id); is {
		u.fail() // it has a shorter form
	}
	return id, false
}

// bothIDs spells a key's id and its account's uid, as one allocation where
// both are UUIDs, as they are unless somebody has made them by hand.
func bothIDs(id string, idIsUUID bool, uid string, uidIsUUID bool) (policy.KeyID, string) {
	var b [2 * uuidText]byte
	at := b[:0]
	if idIsUUID {
		at = appendUUIDText(at, id)
	}
	if uidIsUUID {
		at = appendUUIDText(at, uid)
	}
	spelled := string(at)
	if idIsUUID {
		id, spelled = spelled[:uuidText], spelled[uuidText:]
	}
	if uidIsUUID {
		uid = spelled
	}
	return policy.KeyID(id), uid
}

// rights reads what appendRights wrote.
func (u *unpacker) rights(k *policy.Key, flags byte) {
	k.Permissions = make(policy.PermissionSet, u.count())
	for i := range k.Permissions {
		k.Permissions[i] = policy.Permission(u.text())
	}
	k.Subaccounts, k.Addresses = policy.AllSubaccounts(), policy.AnyAddress()
	if flags&flagAllSubaccounts == 0 {
		k.Subaccounts = u.subaccounts()
	}
	if flags&flagAnyAddress == 0 {
		prefixes := make([]netip.Prefix, u.count())
		for i := range prefixes {
			prefixes[i] = u.prefix()
		}
		k.Addresses = policy.OnlyAddresses(prefixes...)
		u.refuseIf(len(k.Addresses.Prefixes()) != len(prefixes)) // one is there twice
	}
}

// subaccounts spells all ids as one allocation.
func (u *unpacker) subaccounts() policy.SubaccountSet {
	n := u.count()
	raw := u.bytes(uint64(n) * uuidLength) // #nosec G115 -- never negative
	if u.bad {
		return policy.SubaccountSet{}
	}
	spelled := make([]byte, 0, n*uuidText)
	for at := 0; at < len(raw); at += uuidLength {
		spelled = appendUUIDText(spelled, raw[at:at+uuidLength])
	}
	all := string(spelled)
	ids := make([]policy.SubaccountID, n)
	for i := range ids {
		ids[i] = policy.SubaccountID(all[i*uuidText : (i+1)*uuidText])
	}
	set := policy.OnlySubaccounts(ids...)
	u.refuseIf(len(set.IDs()) != n) // one is there twice
	return set
}

func (u *unpacker) refuseIf(wrong bool) {
	if wrong {
		u.fail()
	}
}
