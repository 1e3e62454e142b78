package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gatehouse/proxy/contract"
)

type keyCommand struct {
	Create keyCreate `cmd:"" help:"Create a key of an account and print its token, once."`
	List   keyList   `cmd:"" help:"List the keys of an account, the newest first."`
	Revoke keyRevoke `cmd:"" help:"Revoke a key for good."`
}

type keyCreate struct {
	adminFlags
	Account    string   `help:"The account's id." required:""`
	Name       string   `help:"What the key is for." required:""`
	Permission []string `help:"A permission; may be repeated." required:"" sep:"none" placeholder:"PERMISSION"`
	Subaccount []string `help:"A subaccount that the key is limited to; may be repeated. Left out: all." sep:"none" placeholder:"UUID"`
	AllowIP    []string `help:"An address or CIDR range that the key is limited to; may be repeated. Left out: all." name:"allow-ip" sep:"none" placeholder:"CIDR"`
	ExpiresAt  string   `help:"When the key expires, in Unix seconds or as 2006-01-02T15:04:05Z. Left out: never." xor:"expiry" placeholder:"TIME"`
	ExpiresIn  string   `help:"After how long the key expires: 90m, 720h." xor:"expiry" placeholder:"DURATION"`
}

// Run creates the key.
func (c *keyCreate) Run(t *terminal) error {
	expires, err := c.expiry(time.Now())
	if err != nil {
		return usageError{err}
	}
	body := contract.NewKey{
		Name: c.Name, Permissions: c.Permission, AllowedSubaccounts: append(contract.Strings{}, c.Subaccount...),
		AllowedIPs: append(contract.Strings{}, c.AllowIP...), ExpiresAt: expires,
	}
	return c.do(t, http.MethodPost, keysOf(c.Account), body, func(answer []byte) error {
		created, err := dataOf[struct {
			ID    string `json:"id"`
			Token string `json:"token"`
		}](answer)
		if err != nil {
			return err
		}
		return t.print("Key    %s\nToken  %s\n\nThis token is shown only this once. Keep it safe now.\n", created.ID, created.Token)
	})
}

// expiry is nil for a key that does not expire.
func (c *keyCreate) expiry(now time.Time) (*int64, error) {
	var at int64
	switch {
	case c.ExpiresIn != "":
		d, err := time.ParseDuration(c.ExpiresIn)
		if err != nil {
			return nil, fmt.Errorf("--expires-in %s: write it like 90m or 720h", c.ExpiresIn)
		}
		at = now.Add(d).Unix()
	case c.ExpiresAt != "":
		moment, err := time.Parse(time.RFC3339, c.ExpiresAt)
		at = moment.Unix()
		if err != nil {
			if at, err = strconv.ParseInt(c.ExpiresAt, 10, 64); err != nil {
				return nil, fmt.Errorf("--expires-at %s: write Unix seconds, or 2006-01-02T15:04:05Z", c.ExpiresAt)
			}
		}
	default:
		return nil, nil
	}
	return &at, nil
}

type keyList struct {
	adminFlags
	Account string `help:"The account's id." required:""`
}

// Run lists the keys.
func (c *keyList) Run(t *terminal) error {
	return c.list(t, keysOf(c.Account), func(items []json.RawMessage) error {
		rows := [][]string{{"ID", "NAME", "TOKEN", "STATE", "EXPIRES", "PERMISSIONS", "SUBACCOUNTS", "ADDRESSES"}}
		for _, item := range items {
			var k contract.Key
			if err := json.Unmarshal(item, &k); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			state, expires := keyState(k, time.Now())
			rows = append(rows, []string{
				k.ID, k.Name, k.TokenPreview, state, expires, listed(k.Permissions, "none"),
				listed(k.AllowedSubaccounts, "all"), listed(k.AllowedIPs, "all"),
			})
		}
		return t.table(rows)
	})
}

// keyState says in a word whether a key works, and when that ends.
func keyState(k contract.Key, now time.Time) (state, expires string) {
	state, expires = "active", "never"
	if k.ExpiresAt != nil {
		expires = moment(*k.ExpiresAt)
		if now.Unix() >= *k.ExpiresAt {
			state = "expired"
		}
	}
	if !k.IsActive {
		state = "disabled"
	}
	return state, expires
}

type keyRevoke struct {
	adminFlags
	Account string `help:"The account's id." required:""`
	ID      string `arg:"" help:"The key's id."`
}

// Run revokes the key.
func (c *keyRevoke) Run(t *terminal) error {
	return c.do(t, http.MethodDelete, keysOf(c.Account)+"/"+url.PathEscape(c.ID), nil, func([]byte) error {
		return t.print("Key %s is revoked.\n", c.ID)
	})
}

func keysOf(account string) string { return "/accounts/" + url.PathEscape(account) + "/keys" }
