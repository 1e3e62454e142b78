package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"gatehouse/proxy/contract"
)

type accountCommand struct {
	Put    accountPut    `cmd:"" help:"Create an account, or replace what it may do. Its keys stay."`
	Get    accountGet    `cmd:"" help:"Show an account."`
	List   accountList   `cmd:"" help:"List all accounts, the newest first."`
	Delete accountDelete `cmd:"" help:"Delete an account. Its keys die with it."`
}

type accountPut struct {
	adminFlags
	ID         string   `arg:"" help:"The account's id: 1-64 of A-Z a-z 0-9 . _ -"`
	Name       string   `help:"Its name."`
	Permission []string `help:"A permission, RESOURCE:* or *; may be repeated." sep:"none" placeholder:"PERMISSION"`
	Status     string   `help:"active or suspended. Left out: as it is, and active for a new account." enum:"active,suspended,unchanged" default:"unchanged"`
	Subaccount []string `help:"A subaccount; may be repeated." sep:"none" placeholder:"UUID,PRODUCT[,LABEL]"`
	Plan       string   `help:"The plan of the configuration that sets the rate of its keys. Left out: none." placeholder:"PLAN"`
}

// Run puts the account.
func (c *accountPut) Run(t *terminal) error {
	body := struct {
		Name        string                `json:"name"`
		Permissions []string              `json:"permissions"`
		Status      *string               `json:"status,omitempty"`
		Subaccounts []contract.Subaccount `json:"subaccounts"`
		Plan        string                `json:"plan,omitempty"`
	}{Name: c.Name, Permissions: append([]string{}, c.Permission...), Subaccounts: []contract.Subaccount{}, Plan: c.Plan}
	if c.Status != "unchanged" {
		body.Status = &c.Status
	}
	for _, s := range c.Subaccount {
		parts := strings.SplitN(s, ",", 3)
		if len(parts) < 2 {
			return usageError{fmt.Errorf("--subaccount %s: write UUID,PRODUCT or UUID,PRODUCT,LABEL", s)}
		}
		subaccount := contract.Subaccount{ID: parts[0], Product: parts[1]}
		if len(parts) == 3 {
			subaccount.Label = parts[2]
		}
		body.Subaccounts = append(body.Subaccounts, subaccount)
	}
	return c.do(t, http.MethodPut, "/accounts/"+url.PathEscape(c.ID), body, t.showAccount)
}

type accountGet struct {
	adminFlags
	ID string `arg:"" help:"The account's id."`
}

// Run shows the account.
func (c *accountGet) Run(t *terminal) error {
	return c.do(t, http.MethodGet, "/accounts/"+url.PathEscape(c.ID), nil, t.showAccount)
}

type accountList struct{ adminFlags }

// Run lists the accounts.
func (c *accountList) Run(t *terminal) error {
	return c.list(t, "/accounts", func(items []json.RawMessage) error {
		rows := [][]string{{"ID", "NAME", "STATUS", "PERMISSIONS", "SUBACCOUNTS", "CREATED"}}
		for _, item := range items {
			var a contract.Account
			if err := json.Unmarshal(item, &a); err != nil {
				return fmt.Errorf("read answer: %w", err)
			}
			rows = append(rows, []string{
				a.ID, a.Name, a.Status, listed(a.Permissions, "none"), strconv.Itoa(len(a.Subaccounts)), moment(a.CreatedAt),
			})
		}
		return t.table(rows)
	})
}

type accountDelete struct {
	adminFlags
	ID  string `arg:"" help:"The account's id."`
	Yes bool   `help:"Delete without asking." short:"y"`
}

// Run deletes the account.
func (c *accountDelete) Run(t *terminal) error {
	if !c.Yes {
		if err := t.confirm("Delete account " + c.ID + " and all its keys? Type its id to confirm: "); err != nil {
			return err
		}
		var typed string
		if _, err := fmt.Fscanln(t.in, &typed); err != nil || typed != c.ID {
			return errors.New("nothing was deleted")
		}
	}
	return c.do(t, http.MethodDelete, "/accounts/"+url.PathEscape(c.ID), nil, func([]byte) error {
		return t.print("Account %s is deleted.\n", c.ID)
	})
}

// confirm asks on the terminal, not in the output.
func (t *terminal) confirm(question string) error {
	_, err := fmt.Fprint(t.err, question)
	return err
}

func (t *terminal) showAccount(answer []byte) error {
	a, err := dataOf[contract.Account](answer)
	if err != nil {
		return err
	}
	rows := [][]string{
		{"ID", a.ID},
		{"Name", a.Name},
		{"Status", a.Status},
		{"Permissions", listed(a.Permissions, "none")},
		{"Created", moment(a.CreatedAt)},
		{"Updated", moment(a.UpdatedAt)},
	}
	if a.Plan != nil {
		rows = append(rows, []string{"Plan", *a.Plan})
	}
	for _, s := range a.Subaccounts {
		rows = append(rows, []string{"Subaccount", s.ID + "  " + s.Product + "  " + s.Label})
	}
	return t.table(rows)
}
