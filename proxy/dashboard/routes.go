package dashboard

// The paths of pages that others lead to.
const (
	signInPath   = Prefix + "/sign-in"
	signOutPath  = Prefix + "/sign-out"
	passwordPath = Prefix + "/password"
	keysPath     = Prefix + "/keys"
	auditPath    = Prefix + "/audit"
	profilePath  = Prefix + "/profile"
)

// routeList is every page and form that there is.
func (d *Dashboard) routeList() []*route {
	list := []*route{
		{pattern: "GET " + signInPath, open: true, answer: d.showSignIn},
		{pattern: "POST " + signInPath, open: true, answer: d.signIn},
		{pattern: "POST " + signOutPath, unchanged: true, answer: d.signOut},
	}
	for _, more := range [][]*route{d.keyRoutes(), d.formRoutes(), d.keyPageRoutes(), d.auditRoutes(), d.profileRoutes(), d.providerRoutes()} {
		list = append(list, more...)
	}
	for _, r := range list {
		r.d = d
	}
	return list
}
