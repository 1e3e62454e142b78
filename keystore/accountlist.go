package keystore

import (
	"context"
	"errors"
	"fmt"

	"gatehouse/policy"
)

// ListAccounts returns up to limit accounts, the newest first, from the cursor
// on that an earlier call returned ("" for the first), and the cursor of the
// next page, "" when there is none; or ErrBadCursor.
func (s *Store) ListAccounts(ctx context.Context, cursor string, limit int) ([]Account, string, error) {
	cursored, err := parseCursor(cursor)
	if err != nil {
		return nil, "", err
	}
	var after *member
	if cursored != nil {
		after = &member{cursored.id, cursored.created}
	}
	page, err := s.data.members(ctx, s.names.accounts(), after, limit+1)
	if err != nil {
		return nil, "", fmt.Errorf("list accounts: %w", errors.Join(ErrUnavailable, err))
	}
	if err := s.trustAbsence(ctx, s.names.accounts()); err != nil {
		return nil, "", fmt.Errorf("list accounts: %w", err)
	}
	next := ""
	if len(page) > limit {
		page = page[:limit]
		if limit > 0 {
			last := page[limit-1]
			next = nextCursor([]indexEntry{{id: last.name, created: last.score}}, 1)
		}
	}
	accounts := make([]Account, 0, len(page))
	for _, m := range page {
		stored, _, err := s.readAccount(ctx, policy.AccountID(m.name))
		if errors.Is(err, ErrNotFound) {
			continue // deleted, or never written to the end
		}
		if err != nil {
			return nil, "", fmt.Errorf("list accounts: %w", err)
		}
		accounts = append(accounts, stored.account)
	}
	return accounts, next, nil
}

// accountPortion is how many accounts are read at a time where all are.
const accountPortion = 500

// eachAccounts calls visit for all accounts of the list, in portions, the newest
// first, and returns its error as it is. Those that are added or deleted
// meanwhile may be missing; of the others each comes once. There may be some of
// which nothing but their place in the list is left.
func (s *Store) eachAccounts(ctx context.Context, visit func([]member) error) error {
	for after := (*member)(nil); ; {
		portion, err := s.data.members(ctx, s.names.accounts(), after, accountPortion)
		if err != nil {
			return errors.Join(ErrUnavailable, err)
		}
		if len(portion) > 0 {
			if err := visit(portion); err != nil {
				return err
			}
		}
		if len(portion) < accountPortion {
			return s.trustAbsence(ctx, s.names.accounts())
		}
		after = &portion[len(portion)-1]
	}
}
