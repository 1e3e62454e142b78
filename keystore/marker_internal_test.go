package keystore

import "testing"

func TestSlots(t *testing.T) {
	// CLUSTER KEYSLOT of a redis-server says so.
	for key, want := range map[string]int{"foo": 12182, "gatehouse:store": slotOf("x{gatehouse:store}"), "a{b}c": slotOf("b"), "123456789": 0x31C3 % clusterSlots} {
		if got := slotOf(key); got != want {
			t.Errorf("slotOf(%q) = %d, want %d", key, got, want)
		}
	}
	for slot, tag := range slotTags() {
		if tag == "" || slotOf(tag) != slot {
			t.Fatalf("slot %d has the tag %q", slot, tag)
		}
	}
}

func TestMarkerValues(t *testing.T) {
	for _, position := range []uint64{0, 1, 1<<countBits - 1, 1 << countBits, 7<<countBits | 42} {
		got, ok := parseMarker(markerValue("id", position), "id")
		if !ok || got != position {
			t.Errorf("got %d, %v, want %d", got, ok, position)
		}
	}
	for _, bad := range []string{"", "id", "id:", "id:1", "id:1:", "id::1", "other:1:1", "id:1:1:1", "id:-1:1", "idx:1:1", "id:16777216:1", "id:1:1099511627776"} {
		if _, ok := parseMarker(bad, "id"); ok {
			t.Errorf("%q was taken for a marker", bad)
		}
	}
}
