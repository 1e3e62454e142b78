package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"gatehouse/proxy/contract"
)

type keyCommand struct {
	Create     keyCreate     `cmd:"" help:"Create a key and print its token, once."`
	List       keyList       `cmd:"" help:"List the keys of an account, the newest first."`
	Get        keyGet        `cmd:"" help:"Show a key, as a customer."`
	Update     keyUpdate     `cmd:"" help:"Change a key, as a customer. What is not named stays as it is."`
	Revoke     keyRevoke     `cmd:"" help:"Revoke a key for good."`
	Regenerate keyRegenerate `cmd:"" help:"Put a new key and token in the place of a key, as a customer, and print the token, once."`
	Whoami     keyWhoami     `cmd:"" help:"Show what the gateway sees of your own key, as a customer."`
	Audit      keyAudit      `cmd:"" help:"Show who did what to the keys of an account, and what was refused."`
}

// keyFlags are those of every command about keys: as an operator, for an
// account, or as a customer with a token.
type keyFlags struct {
	adminFlags
	Account string `help:"The account's id, as an operator." placeholder:"ID"`
	URL     string `help:"The gateway's address for clients. With it you are a customer, whose token is in GATEHOUSE_TOKEN." name:"url" env:"GATEHOUSE_URL" placeholder:"URL"`
}

// gateway returns as whom to talk to which gateway, and the path of the keys there.
func (f *keyFlags) gateway(t *terminal) (r *remote, account string, err error) {
	switch {
	case f.URL == "" && f.Account == "":
		return nil, "", usageError{errors.New("name the account with --account, as an operator, or the gateway with --url, as a customer")}
	case f.URL == "":
		r, err = f.remote(t)
		return r, "/accounts/" + url.PathEscape(f.Account), err
	case f.Account != "":
		return nil, "", usageError{errors.New("with --url or GATEHOUSE_URL the account is that of your token: leave --account out, or the URL")}
	}
	r, err = f.customer(t)
	return r, "", err
}

// customer is the clients' side of the gateway.
func (f *keyFlags) customer(t *terminal) (*remote, error) {
	if f.URL == "" {
		return nil, usageError{errors.New("this is for customers: name the gateway with --url, and put your token into GATEHOUSE_TOKEN")}
	}
	token, _ := t.lookupEnv("GATEHOUSE_TOKEN")
	if token == "" {
		return nil, usageError{errors.New("set GATEHOUSE_TOKEN to the token of a key that may manage keys")}
	}
	return newRemote(remote{base: f.URL, flag: "--url", prefix: "/v4/account", header: "Api-Token", value: token, json: f.JSON})
}

// keys is the path of an account's keys, on either side.
func (f *keyFlags) keys(account string) string {
	if account == "" {
		return "/api-keys"
	}
	return account + "/keys"
}

type keyCreate struct {
	keyFlags
	expiryFlags
	tokenFlags
	Name       string   `help:"What the key is for." required:""`
	Permission []string `help:"A permission; may be repeated." required:"" sep:"none" placeholder:"PERMISSION"`
	Subaccount []string `help:"A subaccount that the key is limited to; may be repeated. Left out: all." sep:"none" placeholder:"UUID"`
	AllowIP    []string `help:"An address or CIDR range that the key is limited to; may be repeated. Left out: all." name:"allow-ip" sep:"none" placeholder:"CIDR"`
}

// expiryFlags say when a key expires.
type expiryFlags struct {
	ExpiresAt string `help:"When the key expires, in Unix seconds or as 2006-01-02T15:04:05Z." xor:"expiry" placeholder:"TIME"`
	ExpiresIn string `help:"After how long the key expires: 90m, 720h." xor:"expiry" placeholder:"DURATION"`
}

// Run creates the key.
func (c *keyCreate) Run(t *terminal) error {
	expires, err := c.expiry(time.Now())
	if err != nil {
		return usageError{err}
	}
	if err := c.check(c.JSON); err != nil {
		return err
	}
	body := contract.NewKey{
		Name: c.Name, Permissions: c.Permission, AllowedSubaccounts: append(contract.Strings{}, c.Subaccount...),
		AllowedIPs: append(contract.Strings{}, c.AllowIP...), ExpiresAt: expires,
	}
	r, account, err := c.gateway(t)
	if err != nil {
		return err
	}
	return r.do(t, http.MethodPost, c.keys(account), body, func(answer []byte) error { return c.showToken(t, answer) })
}

// tokenFlags say how a new token is printed.
type tokenFlags struct {
	TokenOnly bool `help:"Print the token alone, for scripts."`
}

func (f *tokenFlags) check(asJSON bool) error {
	if f.TokenOnly && asJSON {
		return usageError{errors.New("--token-only and --json: take one of them")}
	}
	return nil
}

// showToken shows a token that cannot be shown again.
func (f *tokenFlags) showToken(t *terminal, answer []byte) error {
	created, err := dataOf[struct {
		ID    string `json:"id"`
		Token string `json:"token"`
	}](answer)
	if err != nil {
		return err
	}
	if f.TokenOnly {
		return t.print("%s\n", plain(created.Token))
	}
	return t.print("Key    %s\nToken  %s\n\nThis token is shown only this once. Keep it safe now.\n", plain(created.ID), plain(created.Token))
}

// expiry is nil for a key that does not expire.
func (c *expiryFlags) expiry(now time.Time) (*int64, error) {
	var at int64
	switch {
	case c.ExpiresIn != "":
		d, err := time.ParseDuration(c.ExpiresIn)
		if err != nil {
			return nil, fmt.Errorf("--expires-in %s: write it like 90m or 720h", c.ExpiresIn)
		}
		at = now.Add(d).Unix()
	case c.ExpiresAt != "":
		var err error
		if at, err = readMoment(c.ExpiresAt); err != nil {
			return nil, fmt.Errorf("--expires-at %w", err)
		}
	default:
		return nil, nil
	}
	return &at, nil
}

// readMoment reads a time in Unix seconds, or as RFC 3339 has it.
func readMoment(s string) (unixSeconds int64, err error) {
	if at, err := time.Parse(time.RFC3339, s); err == nil {
		return at.Unix(), nil
	}
	at, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s: write Unix seconds, or 2006-01-02T15:04:05Z", s)
	}
	return at, nil
}

type keyList struct{ keyFlags }

// Run lists the keys.
func (c *keyList) Run(t *terminal) error {
	r, account, err := c.gateway(t)
	if err != nil {
		return err
	}
	return r.list(t, c.keys(account), url.Values{}, 0, func(items []json.RawMessage) error {
		rows := [][]string{{"ID", "NAME", "TOKEN", "STATE", "EXPIRES", "LAST USED", "PERMISSIONS", "SUBACCOUNTS", "ADDRESSES"}}
		for _, item := range items {
			var k contract.Key
			if err := json.Unmarshal(item, &k); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			state, expires := keyState(k, time.Now())
			rows = append(rows, []string{
				plain(k.ID), plain(k.Name), plain(k.TokenPreview), state, expires, keyUsed(k), plain(listed(k.Permissions, "none")),
				plain(listed(k.AllowedSubaccounts, "all")), plain(listed(k.AllowedIPs, "all")),
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

// keyUsed says when a key was used last.
func keyUsed(k contract.Key) string {
	if k.LastUsedAt == nil {
		return "never"
	}
	return moment(*k.LastUsedAt)
}

type keyRevoke struct {
	keyFlags
	ID string `arg:"" help:"The key's id."`
}

// Run revokes the key.
func (c *keyRevoke) Run(t *terminal) error {
	r, account, err := c.gateway(t)
	if err != nil {
		return err
	}
	return r.do(t, http.MethodDelete, c.keys(account)+"/"+url.PathEscape(c.ID), nil, func([]byte) error {
		return t.print("Key %s is revoked.\n", c.ID)
	})
}
