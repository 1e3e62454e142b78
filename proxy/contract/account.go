package contract

import (
	"slices"
	"strconv"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// NewAccount is the body of a request that creates or replaces an account.
type NewAccount struct {
	Name        string        `json:"name"`
	Permissions *Strings      `json:"permissions"`
	Status      *string       `json:"status"`
	Subaccounts []*Subaccount `json:"subaccounts"`
	Plan        *string       `json:"plan"`
}

// Subaccount is one product instance of an account.
type Subaccount struct {
	ID      string `json:"id"`
	Label   string `json:"label"`
	Product string `json:"product"`
}

// Parse checks every field and returns the account that is asked for, or a 422
// problem that names each fault. Without a status it has none: the store keeps
// that of an existing account, so that a replacement cannot lift a suspension
// by not speaking of it. Without a plan it has none.
func (a NewAccount) Parse(id policy.AccountID, catalogue policy.Catalogue, products, plans []string) (keystore.Account, error) {
	var wrong faults
	account := keystore.Account{ID: id, Permissions: []string{}}
	name, fault := readName(a.Name)
	if fault != "" {
		wrong.add("name", fault)
	}
	account.Name = name
	if a.Status != nil {
		account.Status = policy.Status(*a.Status)
		if account.Status != policy.Active && account.Status != policy.Suspended {
			wrong.add("status", "The status must be active or suspended.")
		}
	}
	if a.Permissions == nil {
		wrong.add("permissions", `The account's permissions are required; [] for none, ["*"] for all.`)
	} else {
		account.Permissions = parseGrants(*a.Permissions, catalogue, &wrong)
	}
	account.Subaccounts = parseNewSubaccounts(a.Subaccounts, products, &wrong)
	if a.Plan != nil {
		account.Plan = *a.Plan
		if !slices.Contains(plans, account.Plan) {
			wrong.add("plan", strconv.Quote(shown(account.Plan))+" is not a plan of the configuration.")
		}
	}
	return account, wrong.err()
}

func parseGrants(given []string, catalogue policy.Catalogue, wrong *faults) []string {
	grants := []string{}
	for i, s := range given {
		if wrong.full() {
			break
		}
		if catalogue.ParseAccountGrant(s) != nil {
			wrong.addValue("permissions", i, s, " stands for no permission of the catalogue.")
		} else if !slices.Contains(grants, s) {
			grants = append(grants, s)
		}
	}
	return grants
}

func parseNewSubaccounts(given []*Subaccount, products []string, wrong *faults) []policy.Subaccount {
	subaccounts := make([]policy.Subaccount, 0, len(given))
	seen := make(map[policy.SubaccountID]bool, len(given))
	for i, s := range given {
		if wrong.full() {
			break
		}
		if s == nil {
			wrong.addAt("subaccounts", i, "A subaccount must be an object.")
			continue
		}
		at := "subaccounts[" + strconv.Itoa(i) + "]."
		id, err := policy.ParseSubaccountID(s.ID)
		switch {
		case err != nil:
			wrong.add(at+"id", strconv.Quote(shown(s.ID))+" is not a UUID.")
		case seen[id]:
			wrong.add(at+"id", string(id)+" is there twice.")
		}
		seen[id] = true
		label, fault := readName(s.Label)
		if fault != "" {
			wrong.add(at+"label", fault)
		}
		if !slices.Contains(products, s.Product) {
			wrong.add(at+"product", strconv.Quote(shown(s.Product))+" is not a product of the configuration.")
		}
		subaccounts = append(subaccounts, policy.Subaccount{ID: id, Label: label, Product: s.Product})
	}
	return subaccounts
}

// Account is an account as operators see it.
type Account struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Status      string       `json:"status"`
	Permissions []string     `json:"permissions"`
	Subaccounts []Subaccount `json:"subaccounts"`
	Plan        *string      `json:"plan"`
	CreatedAt   int64        `json:"created_at"`
	UpdatedAt   int64        `json:"updated_at"`
}

// ShowAccount gives an account its documented form.
func ShowAccount(a keystore.Account) Account {
	subaccounts := make([]Subaccount, 0, len(a.Subaccounts))
	for _, s := range a.Subaccounts {
		subaccounts = append(subaccounts, Subaccount{ID: string(s.ID), Label: s.Label, Product: s.Product})
	}
	var plan *string
	if a.Plan != "" {
		plan = &a.Plan
	}
	return Account{
		ID: string(a.ID), Name: a.Name, Status: string(a.Status), Permissions: append([]string{}, a.Permissions...),
		Subaccounts: subaccounts, Plan: plan, CreatedAt: a.CreatedAt.Unix(), UpdatedAt: a.UpdatedAt.Unix(),
	}
}
