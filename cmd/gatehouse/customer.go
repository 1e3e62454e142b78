package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"gatehouse/proxy/contract"
)

type keyGet struct {
	keyFlags
	ID string `arg:"" help:"The key's id."`
}

// Run shows the key.
func (c *keyGet) Run(t *terminal) error {
	r, err := c.customer(t)
	if err != nil {
		return err
	}
	return r.do(t, http.MethodGet, "/api-keys/"+url.PathEscape(c.ID), nil, t.showKey)
}

type keyUpdate struct {
	keyFlags
	expiryFlags
	ID             string   `arg:"" help:"The key's id."`
	Name           *string  `help:"What the key is for."`
	Permission     []string `help:"A permission, of all that the key is to have; may be repeated." sep:"none" placeholder:"PERMISSION"`
	Subaccount     []string `help:"A subaccount, of all that the key is to be limited to; may be repeated." sep:"none" placeholder:"UUID" xor:"subaccounts"`
	AllSubaccounts bool     `help:"Lift the limit to subaccounts, as far as your own key reaches." xor:"subaccounts"`
	AllowIP        []string `help:"An address or CIDR range, of all that the key is to be limited to; may be repeated." name:"allow-ip" sep:"none" placeholder:"CIDR" xor:"addresses"`
	AnyIP          bool     `help:"Lift the limit to addresses." name:"any-ip" xor:"addresses"`
	NeverExpires   bool     `help:"Lift the expiry." xor:"expiry"`
	Enable         bool     `help:"Let the key work again." xor:"active"`
	Disable        bool     `help:"Keep the key from working, without revoking it." xor:"active"`
}

// Run changes the key.
func (c *keyUpdate) Run(t *terminal) error {
	body, err := c.body(time.Now())
	if err != nil {
		return usageError{err}
	}
	r, err := c.customer(t)
	if err != nil {
		return err
	}
	return r.do(t, http.MethodPut, "/api-keys/"+url.PathEscape(c.ID), body, func(answer []byte) error {
		updated, err := dataOf[struct {
			UpdatedFields []string `json:"updated_fields"`
		}](answer)
		if err != nil {
			return err
		}
		return t.print("Key %s: changed %s.\n", c.ID, plain(listed(updated.UpdatedFields, "nothing")))
	})
}

func (c *keyUpdate) body(now time.Time) (map[string]any, error) {
	body := map[string]any{}
	if c.Name != nil {
		body["name"] = *c.Name
	}
	if len(c.Permission) > 0 {
		body["permissions"] = c.Permission
	}
	if len(c.Subaccount) > 0 || c.AllSubaccounts {
		body["allowed_subaccounts"] = append([]string{}, c.Subaccount...)
	}
	if len(c.AllowIP) > 0 || c.AnyIP {
		body["allowed_ips"] = append([]string{}, c.AllowIP...)
	}
	expires, err := c.expiry(now)
	if err != nil {
		return nil, err
	}
	if expires != nil || c.NeverExpires {
		body["expires_at"] = expires
	}
	if c.Enable || c.Disable {
		body["is_active"] = c.Enable
	}
	return body, nil
}

type keyRegenerate struct {
	keyFlags
	tokenFlags
	ID    string        `arg:"" help:"The key's id."`
	Grace time.Duration `help:"For how long the old token goes on working: 24h, of up to a week." placeholder:"DURATION"`
}

// Run replaces the key.
func (c *keyRegenerate) Run(t *terminal) error {
	if err := c.check(c.JSON); err != nil {
		return err
	}
	r, err := c.customer(t)
	if err != nil {
		return err
	}
	body := map[string]int64{"grace_period_seconds": int64(c.Grace / time.Second)}
	return r.do(t, http.MethodPost, "/api-keys/"+url.PathEscape(c.ID)+"/regenerate", body, func(answer []byte) error {
		var said struct {
			Note string `json:"note"`
		}
		if err := json.Unmarshal(answer, &said); err != nil {
			return fmt.Errorf("read answer: %w", err)
		}
		if err := c.showToken(t, answer); err != nil || c.TokenOnly {
			return err
		}
		return t.print("%s\n", plain(said.Note))
	})
}

type keyWhoami struct{ keyFlags }

// Run shows the customer's own key.
func (c *keyWhoami) Run(t *terminal) error {
	r, err := c.customer(t)
	if err != nil {
		return err
	}
	return r.do(t, http.MethodGet, "/whoami", nil, func(answer []byte) error {
		w, err := dataOf[struct {
			AccountID   string   `json:"account_id"`
			KeyID       string   `json:"key_id"`
			Name        string   `json:"name"`
			Permissions []string `json:"permissions"`
			Subaccounts []string `json:"allowed_subaccounts"`
			ClientIP    string   `json:"client_ip"`
		}](answer)
		if err != nil {
			return err
		}
		return t.table([][]string{
			{"Account", plain(w.AccountID)},
			{"Key", plain(w.KeyID)},
			{"Name", plain(w.Name)},
			{"Permissions", plain(listed(w.Permissions, "none"))},
			{"Subaccounts", plain(listed(w.Subaccounts, "all"))},
			{"Your address", plain(w.ClientIP)},
		})
	})
}

type keyAudit struct {
	keyFlags
	Key    string `help:"Only events about this key." placeholder:"UUID"`
	Action string `help:"Only this action, such as key.create." placeholder:"ACTION"`
	Since  string `help:"Only events from this time on, in Unix seconds or as 2006-01-02T15:04:05Z." placeholder:"TIME"`
	Until  string `help:"Only events before this time." placeholder:"TIME"`
	Limit  int    `help:"How many events to show, the newest first." default:"100"`
}

// Run shows the audit log.
func (c *keyAudit) Run(t *terminal) error {
	query := url.Values{"limit": {strconv.Itoa(min(max(c.Limit, 1), 1000))}}
	for name, value := range map[string]string{"key": c.Key, "action": c.Action} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, value := range map[string]string{"from": c.Since, "to": c.Until} {
		if value == "" {
			continue
		}
		at, err := readMoment(value)
		if err != nil {
			return usageError{err}
		}
		query.Set(name, strconv.FormatInt(at, 10))
	}
	r, account, err := c.gateway(t)
	if err != nil {
		return err
	}
	return r.list(t, account+"/audit-log", query, max(c.Limit, 1), func(items []json.RawMessage) error {
		rows := [][]string{{"TIME", "ACTION", "OUTCOME", "ACTOR", "ADDRESS", "KEY", "CHANGED"}}
		for _, item := range items {
			var e contract.Event
			if err := json.Unmarshal(item, &e); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			fields := make([]string, len(e.Changes))
			for i, change := range e.Changes {
				fields[i] = change.Field
			}
			actor := strings.TrimSpace(e.Actor.Kind + " " + orDash(e.Actor.ID))
			rows = append(rows, []string{
				moment(e.Time), plain(e.Action), plain(e.Outcome), plain(actor), plain(orDash(e.Actor.Address)), plain(orDash(e.KeyID)), plain(listed(fields, "-")),
			})
		}
		return t.table(rows)
	})
}

func orDash(s *string) string {
	if s == nil {
		return "-"
	}
	return *s
}

// showKey shows one key.
func (t *terminal) showKey(answer []byte) error {
	k, err := dataOf[contract.Key](answer)
	if err != nil {
		return err
	}
	state, expires := keyState(k, time.Now())
	return t.table([][]string{
		{"ID", plain(k.ID)},
		{"Name", plain(k.Name)},
		{"Token", plain(k.TokenPreview)},
		{"State", state},
		{"Permissions", plain(listed(k.Permissions, "none"))},
		{"Subaccounts", plain(listed(k.AllowedSubaccounts, "all"))},
		{"Addresses", plain(listed(k.AllowedIPs, "all"))},
		{"Expires", expires},
		{"Last used", keyUsed(k)},
		{"Created", moment(k.CreatedAt)},
	})
}

// plain replaces what could move the cursor or hide text on a terminal. The
// gateway lets no such thing into a name; whoever answers in its place might.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return unicode.ReplacementChar
		}
		return r
	}, s)
}
