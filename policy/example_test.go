package policy_test

import (
	"fmt"
	"net/netip"
	"time"

	"gatehouse/policy"
)

func ExampleDecide() {
	office, err := policy.ParsePrefix("203.0.113.0/24")
	if err != nil {
		panic(err)
	}
	account := &policy.Account{
		ID:          "acme",
		Status:      policy.Active,
		Permissions: policy.NewPermissionSet("serp_api:read", "serp_api:write"),
	}
	key := &policy.Key{
		Account:     "acme",
		Active:      true,
		Permissions: policy.NewPermissionSet("serp_api:read"),
		Subaccounts: policy.AllSubaccounts(),
		Addresses:   policy.OnlyAddresses(office),
		Expiry:      policy.NeverExpires(),
	}
	request := policy.Request{
		At:     time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC),
		Client: netip.MustParseAddr("203.0.113.7"),
		Needs:  "serp_api:read",
	}

	fmt.Println(policy.Decide(request, key, account).Reason)

	request.Needs = "serp_api:write"
	decision := policy.Decide(request, key, account)
	fmt.Println(decision.Reason, "-", decision.Detail())

	request.Client = netip.MustParseAddr("198.51.100.7")
	decision = policy.Decide(request, key, account)
	fmt.Println(decision.Reason, "-", decision.Detail())

	// Output:
	// allowed
	// permission_denied - This key lacks the permission serp_api:write.
	// ip_not_allowed - This key may not be used from 198.51.100.7.
}
