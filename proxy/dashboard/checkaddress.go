package dashboard

import (
	"encoding/json"
	"fmt"
	"net/http"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// addressCheck is what the rules of the API say of a list of addresses.
type addressCheck struct {
	Addresses []checkedAddress `json:"addresses"`
	// Error is of the list as a whole.
	Error string `json:"error"`
	// Client is the address that the person has here, "" where it is not known;
	// LockedOut: a key with these addresses could not be used from it.
	Client    string `json:"client"`
	LockedOut bool   `json:"locked_out"`
}

// checkedAddress is one entry: as it was typed, and as it is stored or what is
// wrong with it.
type checkedAddress struct {
	Given   string `json:"given"`
	Address string `json:"address"`
	Error   string `json:"error"`
}

// answerAddresses checks addresses while they are typed.
func (d *Dashboard) answerAddresses(v *visit) error {
	form, err := v.form()
	if err != nil {
		return err
	}
	body, err := json.Marshal(d.checkAddresses(v, splitAddresses(form.Get("addresses"))))
	if err != nil {
		return fmt.Errorf("check addresses: %w", err)
	}
	v.w.Header().Set("Content-Type", "application/json")
	v.w.WriteHeader(http.StatusOK)
	_, _ = v.w.Write(body) // a browser that has gone needs no answer
	return nil
}

// checkAddresses asks the rule of the API about each address, and about all of
// them together.
func (d *Dashboard) checkAddresses(v *visit, given []string) addressCheck {
	check := addressCheck{Addresses: []checkedAddress{}}
	if v.caller.Client.IsValid() {
		check.Client = v.caller.Client.String()
	}
	if _, fault := d.parseAddresses(v, given); fault.Field == addressesField {
		check.Error = fault.Detail
		return check
	}
	var good []string
	for _, s := range given {
		entry := checkedAddress{Given: s}
		if set, fault := d.parseAddresses(v, []string{s}); fault.Detail != "" {
			entry.Error = fault.Detail
		} else {
			entry.Address = set.Strings()[0]
			good = append(good, s)
		}
		check.Addresses = append(check.Addresses, entry)
	}
	if len(good) > 0 {
		set, _ := d.parseAddresses(v, good)
		check.LockedOut = check.Client != "" && !set.Contains(v.caller.Client)
	}
	return check
}

// parseAddresses reads the list as an update of a key would, and returns the
// first fault.
func (d *Dashboard) parseAddresses(v *visit, given []string) (policy.AddressSet, problem.FieldError) {
	body := contract.UpdateKey{AllowedIPs: contract.Given[[]string]{Present: true, Value: given}}
	asked, err := body.Parse(v.caller.Account, d.o.Catalogue, d.o.Now())
	if err != nil {
		if fields := problem.From(err).Fields; len(fields) > 0 {
			return policy.AddressSet{}, fields[0]
		}
		return policy.AddressSet{}, problem.FieldError{Field: addressesField, Detail: problem.From(err).Detail}
	}
	return *asked.Addresses, problem.FieldError{}
}
