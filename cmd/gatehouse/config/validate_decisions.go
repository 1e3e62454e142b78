package config

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
	"gatehouse/proxy/problem"
)

// decisionValidator looks for what a file of decisions must not say.
type decisionValidator struct {
	*validator
	decisions *Decisions
	catalogue policy.Catalogue
}

func (v *decisionValidator) validate() {
	v.catalogue, _ = v.config.Catalogue() // the configuration is valid
	for _, id := range slices.Sorted(maps.Keys(v.decisions.Accounts)) {
		a := v.decisions.Accounts[id]
		v.account(path{"accounts"}.key(id), id, &a)
		v.decisions.Accounts[id] = a
	}
	for _, name := range slices.Sorted(maps.Keys(v.decisions.Keys)) {
		k := v.decisions.Keys[name]
		v.key(path{"keys"}.key(name), name, &k)
		v.decisions.Keys[name] = k
	}
	for i, t := range v.decisions.Tests {
		v.test(path{"tests"}.index(i), t)
	}
}

func (v *decisionValidator) account(p path, id string, a *DecisionAccount) {
	if !policy.ValidAccountID(id) {
		v.refuse(p, "is no id of an account", "write 1 to 64 characters of A-Z, a-z, 0-9, ., _ and -")
	}
	v.choice(p.key("status"), a.Status, string(policy.Active), string(policy.Suspended))
	for i, grant := range a.Permissions {
		if v.catalogue.ParseAccountGrant(grant) != nil {
			entry := p.key("permissions").index(i)
			v.refuse(entry, v.shown(entry)+" stands for no permission of the configuration", oneOf(grant, v.catalogue.All().Strings(), ""))
		}
	}
	a.rules = policy.Account{
		ID: policy.AccountID(id), Status: policy.Status(a.Status), Permissions: v.catalogue.Resolve(a.Permissions),
		Subaccounts: policy.OnlySubaccounts(v.subaccounts(p.key("subaccounts"), a.Subaccounts)...),
	}
}

func (v *decisionValidator) subaccounts(p path, given []string) []policy.SubaccountID {
	ids := make([]policy.SubaccountID, 0, len(given))
	for i, s := range given {
		id, err := policy.ParseSubaccountID(s)
		if err != nil {
			v.refuse(p.index(i), v.shown(p.index(i))+" is no UUID", "write the subaccount's id, in lower case")
		}
		ids = append(ids, id)
	}
	return ids
}

// key: here, as in the key API, empty lists of subaccounts and addresses are no
// restriction.
func (v *decisionValidator) key(p path, name string, k *DecisionKey) {
	account, known := v.decisions.Accounts[k.Account]
	if !known {
		v.refuse(p.key("account"), v.shown(p.key("account"))+" is not one of the accounts of this file", oneOf(k.Account, slices.Sorted(maps.Keys(v.decisions.Accounts)), "describe it under accounts"))
	}
	for i, permission := range k.Permissions {
		v.inCatalogue(p.key("permissions").index(i), permission)
	}
	k.key = policy.Key{
		ID: policy.KeyID(name), Account: policy.AccountID(k.Account), Name: name, Active: k.IsActive,
		Subaccounts: policy.AllSubaccounts(), Addresses: policy.AnyAddress(), Expiry: policy.NeverExpires(),
	}
	for _, permission := range k.Permissions {
		k.key.Permissions = append(k.key.Permissions, policy.Permission(permission))
	}
	if ids := v.subaccounts(p.key("allowed_subaccounts"), k.AllowedSubaccounts); len(ids) > 0 {
		k.key.Subaccounts = policy.OnlySubaccounts(ids...)
		for i, id := range ids {
			if entry := p.key("allowed_subaccounts").index(i); known && id != "" && !account.rules.Subaccounts.Contains(id) {
				v.refuse(entry, v.shown(entry)+" is none of the account's", "give it to the account too")
			}
		}
	}
	if len(k.AllowedIPs) > 0 {
		ranges := make([]netip.Prefix, len(k.AllowedIPs))
		for i, s := range k.AllowedIPs {
			if fault, mend := readPrefix(&ranges[i], s); fault != "" {
				v.refuse(p.key("allowed_ips").index(i), v.shown(p.key("allowed_ips").index(i))+" "+fault, mend)
			}
		}
		k.key.Addresses = policy.OnlyAddresses(ranges...)
	}
	if k.ExpiresAt != "" {
		k.key.Expiry = policy.ExpiresAt(v.moment(p.key("expires_at"), k.ExpiresAt).Unix())
	}
}

func (v *decisionValidator) inCatalogue(p path, permission string) {
	if !v.catalogue.Has(policy.Permission(permission)) {
		v.refuse(p, v.shown(p)+" is not a permission of the configuration", oneOf(permission, v.catalogue.All().Strings(), ""))
	}
}

func (v *decisionValidator) moment(p path, s string) time.Time {
	at, err := time.Parse(time.RFC3339, s)
	if err != nil {
		v.refuse(p, v.shown(p)+" is no time", `write it as "2026-12-31T23:59:59Z"`)
	}
	return at
}

func (v *decisionValidator) test(p path, t DecisionTest) {
	if strings.TrimSpace(t.Name) == "" {
		v.refuse(p.key("name"), "is missing", "say what the test holds")
	}
	method, url, _ := strings.Cut(t.Request, " ")
	if _, _, ok := contract.SplitURL(url); !ok || method == "" {
		v.refuse(p.key("request"), v.shown(p.key("request"))+" is no request", "write METHOD /path, or METHOD https://HOST/path")
	}
	if _, known := v.decisions.Keys[t.Key]; t.Key != "" && !known {
		v.refuse(p.key("key"), v.shown(p.key("key"))+" is not one of the keys of this file", oneOf(t.Key, slices.Sorted(maps.Keys(v.decisions.Keys)), "describe it under keys"))
	}
	if _, err := netip.ParseAddr(t.Client); err != nil {
		v.refuse(p.key("client"), v.shown(p.key("client"))+" is no address", "write an IPv4 or IPv6 address")
	}
	for i, line := range t.Headers {
		if !contract.IsHeaderLine(line) {
			v.refuse(p.key("headers").index(i), "is no header line", `write "Name: value" in quotes; the host is that of the URL`)
		}
	}
	if t.At != "" {
		v.moment(p.key("at"), t.At)
	}
	v.expectation(p, t)
}

func (v *decisionValidator) expectation(p path, t DecisionTest) {
	outcomes := []string{string(policy.Allowed), "preflight"}
	for _, code := range problem.Codes() {
		outcomes = append(outcomes, string(code))
	}
	if t.Expect == "" {
		v.refuse(p.key("expect"), "is missing", "write allowed, or the error code of the refusal")
	} else {
		v.choice(p.key("expect"), t.Expect, outcomes...)
	}
	if t.Permission != "" && t.Permission != string(policy.AnyValidKey) {
		v.inCatalogue(p.key("permission"), t.Permission)
	}
	if _, known := v.config.Upstreams[t.Upstream]; t.Upstream != "" && !known {
		v.refuse(p.key("upstream"), v.shown(p.key("upstream"))+" is not one of the upstreams", oneOf(t.Upstream, slices.Sorted(maps.Keys(v.config.Upstreams)), ""))
	}
}
