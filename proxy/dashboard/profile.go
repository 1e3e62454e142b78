package dashboard

// profileRoutes are what users change of themselves.
func (d *Dashboard) profileRoutes() []*route { return nil }
