package dashboard

// formRoutes are the forms that create and change keys.
func (d *Dashboard) formRoutes() []*route { return nil }
