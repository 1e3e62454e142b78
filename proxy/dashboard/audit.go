package dashboard

// auditRoutes are the audit log and its exports.
func (d *Dashboard) auditRoutes() []*route { return nil }
