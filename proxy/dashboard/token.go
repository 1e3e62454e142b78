package dashboard

import (
	"gatehouse/keystore"
	"gatehouse/policy"
)

// tokenPage shows a token, for the one time that there is.
type tokenPage struct {
	Key   keyView
	Token string
	// Base is the URL of the API, for the line that tries the token.
	Base string
	// Regenerated: the key takes the place of another one.
	Regenerated bool
}

// showToken answers a form that made the key. Nothing that could be asked for
// again leads here: the token is in this one answer.
func (d *Dashboard) showToken(v *visit, k policy.Key, token keystore.Token, regenerated bool) error {
	return d.show(v, page{
		name: "token", title: "Copy your token", current: keysPath, scripts: []string{"token.js"},
		content: tokenPage{Key: d.viewKey(k, v.account), Token: token.Reveal(), Base: v.scheme + "://" + v.r.Host, Regenerated: regenerated},
	})
}
