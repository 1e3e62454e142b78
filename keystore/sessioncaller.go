package keystore

import (
	"context"
	"net/netip"

	"gatehouse/policy"
)

// Caller is the person of the session, from that address.
func (ss *Session) Caller(client netip.Addr, requestID string) policy.Caller {
	return policy.Caller{
		Account: ss.Account, Client: client, RequestID: requestID,
		Person: policy.Actor{Kind: policy.ActorSession, ID: string(ss.User.ID)}, Session: ss.ID,
	}
}

// operates reports whether the caller is an operator, who needs no session.
// Every other person does, also one of a kind that is not known here.
func operates(by policy.Caller) bool {
	switch by.Person.Kind {
	case "", policy.ActorOperator, policy.ActorCLI:
		return by.Key == nil && by.Session == ""
	case policy.ActorKey, policy.ActorSession:
	}
	return false
}

// addSession is what the caller's session must still be, or ErrNotFound, and what
// its account must still hold. What is held of the session is its index: unlike
// the record, it is in the account's slot, and no use of the session changes it.
func (s *Store) addSession(ctx context.Context, now *standing, by policy.Caller, needs policy.Permission) error {
	account, id := by.Account.ID, UserID(by.Person.ID)
	user, held, err := s.readUser(ctx, account, id)
	if err != nil {
		return err
	}
	index := s.names.sessions(account, id)
	entry, err := s.indexEntryAt(ctx, index, by.Session)
	if err != nil {
		return err
	}
	session, _, err := s.readSessionAt(ctx, entry.tokenHash)
	if err != nil {
		return err
	}
	if session.session.ID != by.Session || !session.goesOn(user, now.accountUID, now.caller.Account) {
		return ErrNotFound
	}
	now.guards = append(now.guards, held, guard{key: index, has: by.Session})
	if needs != policy.AnyValidKey && !now.caller.Permissions().Has(needs) {
		return &RefusedError{Decision: policy.Decision{Reason: policy.PermissionDenied, Needs: needs}}
	}
	return nil
}
