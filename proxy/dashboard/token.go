package dashboard

import (
	"strings"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// tokenHeader and whoamiPath are of the key API: the one request that every
// valid key may make.
const (
	tokenHeader = "api-token"
	whoamiPath  = "/v4/account/whoami"
)

// tokenPage shows a token, for the one time that there is.
type tokenPage struct {
	Key   keyView
	Token string
	// Curl is a line for a shell that tries the token.
	Curl string
	// KeyPath is the key's page, which is what a reload and the way back lead to.
	KeyPath string
	// Client is the person's own address where the key cannot be used from it.
	Client string
	// Regenerated: the key takes the place of another one.
	Regenerated bool
}

// showToken answers a form that made the key. Nothing that could be asked for
// again leads here: the token is in this one answer.
func (d *Dashboard) showToken(v *visit, k policy.Key, token keystore.Token, regenerated bool) error {
	p := tokenPage{
		Key: d.viewKey(k, v.account), Token: token.Reveal(), Curl: curlLine(d.apiURL(v), token),
		KeyPath: keysPath + "/" + string(k.ID), Regenerated: regenerated,
	}
	if own := v.caller.Client; own.IsValid() && !k.Addresses.Contains(own) {
		p.Client = own.String()
	}
	return d.show(v, page{name: "token", title: "Copy your token", current: keysPath, scripts: []string{"token.js"}, content: p})
}

// apiURL is where the API is: by configuration, or where the page is.
func (d *Dashboard) apiURL(v *visit) string {
	if d.o.API != "" {
		return strings.TrimSuffix(d.o.API, "/")
	}
	return v.scheme + "://" + v.r.Host
}

// curlLine asks the API who the token is.
func curlLine(api string, token keystore.Token) string {
	return "curl -i -H " + shellQuote(tokenHeader+": "+token.Reveal()) + " " + shellQuote(api+whoamiPath)
}

// shellQuote makes one word of s for a POSIX shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
