package dashboard

// providerRoutes are those of signing in by OpenID Connect.
func (d *Dashboard) providerRoutes() []*route { return nil }
