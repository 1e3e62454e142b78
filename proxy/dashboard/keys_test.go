package dashboard_test

import (
	"net/netip"
	"testing"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// use notes how keys are used, as another node does, and has it written.
func (s *site) use(note func(node *keystore.Store)) {
	s.t.Helper()
	node := s.open()
	note(node)
	s.must(node.Close())
}

func onlyAddresses(t *testing.T, list ...string) policy.AddressSet {
	t.Helper()
	var prefixes []netip.Prefix
	for _, text := range list {
		p, err := policy.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		prefixes = append(prefixes, p)
	}
	return policy.OnlyAddresses(prefixes...)
}
