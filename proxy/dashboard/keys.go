package dashboard

import "gatehouse/policy"

// keyRoutes are the list of keys and what its menus do.
func (d *Dashboard) keyRoutes() []*route {
	return []*route{
		{pattern: "GET " + keysPath, needs: policy.ReadKeys, answer: d.showKeys},
	}
}

// showKeys lists the keys of the account.
func (d *Dashboard) showKeys(v *visit) error {
	return d.show(v, page{name: "keys", title: "API keys", current: keysPath})
}
