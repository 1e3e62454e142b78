package dashboard

// keyPageRoutes are the pages of single keys.
func (d *Dashboard) keyPageRoutes() []*route { return nil }
