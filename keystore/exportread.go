package keystore

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/go-json-experiment/json"

	"gatehouse/policy"
)

// ErrBadExport is wrapped by every error about what is in an export.
var ErrBadExport = errors.New("not a whole export")

// ExportInfo is what an export says of itself.
type ExportInfo struct {
	Exported
	TokenPrefix string
	BegunAt     int64 // Unix seconds
}

// CheckExport reads an export to its end, and returns an error that wraps
// ErrBadExport unless it is whole, unaltered, and fully understood.
func CheckExport(r io.Reader) (ExportInfo, error) {
	return walkExport(r, func(*exported) error { return nil })
}

// exported is a record of an export: one of these.
type exported struct {
	account *storedAccount
	key     *storedKey
	user    *storedUser
	created int64
}

// exportReader is where in an export one is.
type exportReader struct {
	sum     hash.Hash
	info    ExportInfo
	begun   bool
	ended   bool
	owner   *storedAccount // of the keys and users that come
	seen    map[policy.AccountID]bool
	own     map[string]bool // hashes and ids of its keys and users
	counted Exported
}

// walkExport calls visit for each record. An error of visit is returned as it
// is, every other wraps ErrBadExport.
func walkExport(r io.Reader, visit func(*exported) error) (ExportInfo, error) {
	x := &exportReader{sum: sha256.New(), seen: map[policy.AccountID]bool{}}
	lines := bufio.NewReaderSize(r, 1<<16)
	for number := 1; ; number++ {
		line, err := readLine(lines)
		if errors.Is(err, io.EOF) {
			break
		}
		var item *exported
		if err == nil {
			item, err = x.line(line)
		}
		if err != nil {
			return ExportInfo{}, fmt.Errorf("%w: line %d: %w", ErrBadExport, number, err)
		}
		if item != nil {
			if err := visit(item); err != nil {
				return ExportInfo{}, err
			}
		}
	}
	if !x.ended {
		return ExportInfo{}, fmt.Errorf("%w: its end is missing", ErrBadExport)
	}
	return x.info, nil
}

// line reads one line, and returns its record, nil for a line that has none.
func (x *exportReader) line(line []byte) (*exported, error) {
	var l exportLine
	if x.ended {
		return nil, errors.New("something stands behind the end")
	}
	if err := json.Unmarshal(line, &l, json.RejectUnknownMembers(true)); err != nil {
		return nil, fmt.Errorf("it is damaged: %w", err)
	}
	if n := members(l); n != 1 {
		return nil, fmt.Errorf("it has %d members of those it may have one of", n)
	}
	if x.begun == (l.Header != nil) {
		return nil, errors.New("the first line, and no other, is the header " + exportFormat)
	}
	if l.End != nil {
		return nil, x.end(l.End)
	}
	_, _ = x.sum.Write(line) // never fails
	switch {
	case l.Header != nil:
		x.begun = true
		x.info.TokenPrefix, x.info.BegunAt = l.Header.TokenPrefix, l.Header.BegunAt
		if l.Header.Format != exportFormat {
			return nil, fmt.Errorf("its format is %q, and only %s is understood", l.Header.Format, exportFormat)
		}
		return nil, nil
	case l.Account != nil:
		return x.account(l.Account)
	case x.owner == nil:
		return nil, errors.New("no account stands before it")
	case l.Key != nil:
		return x.key(l.Key)
	}
	return x.user(l.User)
}

func members(l exportLine) int {
	n := 0
	for _, is := range []bool{l.Header != nil, l.Account != nil, l.Key != nil, l.User != nil, l.End != nil} {
		if is {
			n++
		}
	}
	return n
}

func (x *exportReader) end(e *exportEnd) error {
	x.ended, x.info.Exported = true, e.Exported
	if e.Exported != x.counted {
		return fmt.Errorf("it says %+v, and there are %+v", e.Exported, x.counted)
	}
	if e.SHA256 != hex.EncodeToString(x.sum.Sum(nil)) {
		return errors.New("the checksum is wrong: something was altered")
	}
	return nil
}

// recordName is what says of a record where it is stored.
type recordName struct {
	ID        string `json:"id"`
	TokenHash string `json:"token_hash"`
}

func nameOf(r *exportRecord) (recordName, error) {
	var n recordName
	if err := json.Unmarshal(r.Record, &n); err != nil {
		return recordName{}, fmt.Errorf("%w: %w", errRecord, err)
	}
	return n, nil
}

func (x *exportReader) account(r *exportRecord) (*exported, error) {
	n, err := nameOf(r)
	if err != nil {
		return nil, err
	}
	if !policy.ValidAccountID(n.ID) || x.seen[policy.AccountID(n.ID)] {
		return nil, fmt.Errorf("%q is no id of an account, or is there twice", n.ID)
	}
	// What the grants stand for is a matter of the gateway that reads them.
	x.owner, err = decodeAccount(string(r.Record), policy.AccountID(n.ID), policy.Catalogue{})
	if err == nil && x.owner.uid == "" {
		err = fmt.Errorf("%w of account %s: its uid", errRecord, n.ID)
	}
	x.seen[policy.AccountID(n.ID)], x.own = true, map[string]bool{}
	x.counted.Accounts++
	return &exported{account: x.owner, created: r.CreatedMillis}, err
}

func (x *exportReader) key(r *exportRecord) (*exported, error) {
	n, err := nameOf(r)
	if err != nil {
		return nil, err
	}
	if !isHash(n.TokenHash) {
		return nil, fmt.Errorf("%w of a key: its hash", errRecord)
	}
	k, err := decodeKey(string(r.Record), n.TokenHash)
	if err != nil {
		return nil, err
	}
	if _, err := policy.ParseSubaccountID(string(k.key.ID)); err != nil { // a key's id is a UUID too
		return nil, fmt.Errorf("%w of a key: its id", errRecord)
	}
	if x.own[n.TokenHash] || x.own[n.ID] {
		return nil, fmt.Errorf("key %s is there twice", n.ID)
	}
	x.own[n.TokenHash], x.own[n.ID] = true, true
	if k.key.Account != x.owner.account.ID || k.accountUID != x.owner.uid {
		return nil, fmt.Errorf("key %s is not of the account that it stands behind", k.key.ID)
	}
	x.counted.Keys++
	return &exported{key: k, created: r.CreatedMillis}, nil
}

func (x *exportReader) user(r *exportRecord) (*exported, error) {
	n, err := nameOf(r)
	if err != nil {
		return nil, err
	}
	if _, err := policy.ParseSubaccountID(n.ID); err != nil {
		return nil, fmt.Errorf("%w of a user: its id", errRecord)
	}
	u, err := decodeUser(string(r.Record), x.owner.account.ID, UserID(n.ID))
	if err != nil {
		return nil, err
	}
	if x.own[n.ID] {
		return nil, fmt.Errorf("user %s is there twice", n.ID)
	}
	x.own[n.ID] = true
	if u.accountUID != x.owner.uid {
		return nil, fmt.Errorf("user %s is not of the account that it stands behind", n.ID)
	}
	x.counted.Users++
	return &exported{user: u, created: r.CreatedMillis}, nil
}
