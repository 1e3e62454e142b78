package keystore

import (
	"context"
	"fmt"
	"slices"
)

// seedMarkers gives a new store its markers.
func (s *Store) seedMarkers(ctx context.Context, identity string) error {
	value := markerValue(identity, 0)
	if s.markers.tags == nil {
		return s.committer.commit(ctx, change{steps: []step{{Kind: stepSet, Key: s.markers.name(0), Value: value}}})
	}
	const portion = 1000
	slots := make([]int, clusterSlots)
	for slot := range slots {
		slots[slot] = slot
	}
	for part := range slices.Chunk(slots, portion) {
		pipe := s.client.Pipeline()
		for _, slot := range part {
			pipe.Set(ctx, s.markers.name(slot), value, 0)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return fmt.Errorf("%w: markers: %w", ErrUnavailable, err)
		}
	}
	return nil
}
