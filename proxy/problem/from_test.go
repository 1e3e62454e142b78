package problem_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// TestFrom: what becomes of every error that a handler returns, in the words
// that the client sees.
func TestFrom(t *testing.T) {
	t.Parallel()
	excess := func(e policy.Excess) error { return fmt.Errorf("create key: %w", &e) }
	inside := errors.New("dial tcp 10.1.2.3:6379: connection refused")
	const hidden = "The gateway could not complete this request."
	for _, row := range []struct {
		name   string
		err    error
		code   problem.Code
		detail string
	}{
		{
			"permissions", excess(policy.Excess{Permissions: policy.PermissionSet{"serp_api:read", "serp_api:write"}, Expiry: true}), problem.PermissionNotGrantable,
			"You can only grant what you hold yourself, and you lack: serp_api:read, serp_api:write.",
		},
		{
			"subaccounts", excess(policy.Excess{Subaccounts: []policy.SubaccountID{"a", "b"}, AnyAddress: true}), problem.SubaccountNotGrantable,
			"You cannot grant access to subaccounts that you cannot access yourself: a, b.",
		},
		{
			"all subaccounts", excess(policy.Excess{AllSubaccounts: true}), problem.SubaccountNotGrantable,
			"You can only grant access to subaccounts that you can access yourself.",
		},
		{
			"addresses", excess(policy.Excess{Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}), problem.ExceedsYourAccess,
			"Your key is limited to certain addresses; a key that it makes must be limited to addresses inside of these.",
		},
		{
			"any address", excess(policy.Excess{AnyAddress: true, Expiry: true}), problem.ExceedsYourAccess,
			"Your key is limited to certain addresses; a key that it makes must be limited to addresses inside of these.",
		},
		{
			"lifetime", excess(policy.Excess{Expiry: true}), problem.ExceedsYourAccess,
			"A key cannot outlive the key that makes it; give it an earlier expiry.",
		},

		{
			"unavailable", fmt.Errorf("list: %w: %w", keystore.ErrUnavailable, inside), problem.KeyStoreUnavailable,
			"The key store does not answer at the moment. Nothing is known about this key; try again shortly.",
		},
		{
			"unavailable comes before everything that an outage makes likely", errors.Join(keystore.ErrNotFound, keystore.ErrUnknownToken, keystore.ErrUnavailable),
			problem.KeyStoreUnavailable, "The key store does not answer at the moment. Nothing is known about this key; try again shortly.",
		},
		{
			"read only", fmt.Errorf("create key: %w", errors.Join(keystore.ErrUnavailable, keystore.ErrReadOnly, inside)), problem.KeyStoreUnavailable,
			"The key store accepts no changes at the moment. Nothing was changed; keys go on working.",
		},
		{
			"older", fmt.Errorf("create key: %w", errors.Join(keystore.ErrUnavailable, keystore.ErrOlder)), problem.KeyStoreUnavailable,
			"The key store has come back without some of its last changes, and accepts no new ones until an operator has looked at it. Nothing was changed; keys go on working.",
		},
		{
			"uncertain", fmt.Errorf("create key: %w", errors.Join(keystore.ErrUnavailable, keystore.ErrUncertain)), problem.KeyStoreUnavailable,
			"The key store has not confirmed this change: it may or may not have been made. Look at the object before you try again.",
		},
		{"expired by the store's clock", fmt.Errorf("create key: %w", keystore.ErrExpired), problem.ValidationFailed, "The request has fields that cannot be accepted."},
		{"unknown token", fmt.Errorf("caller: %w", keystore.ErrUnknownToken), problem.InvalidToken, "This token is not valid."},
		{"not found", fmt.Errorf("get key: %w", keystore.ErrNotFound), problem.NotFound, "There is no such object in this account."},
		{"key in use", fmt.Errorf("update key: %w", keystore.ErrKeyInUse), problem.KeyInUse, "A key cannot change itself. Use another key, or the dashboard."},
		{
			"key limit", fmt.Errorf("create key: %w", keystore.ErrKeyLimit), problem.KeyLimitReached,
			"This account has as many keys as it may have. Revoke one that is not needed.",
		},
		{
			"conflict", fmt.Errorf("update key: %w", keystore.ErrConflict), problem.Conflict,
			"Another change to the same object came first. Look at it again, then try again.",
		},
		{
			"too much usage", fmt.Errorf("read usage: %w", keystore.ErrTooMuchUsage), problem.ValidationFailed,
			"The request has fields that cannot be accepted.",
		},
		{
			"usage is busy", fmt.Errorf("rank usage: %w", keystore.ErrUsageBusy), problem.RateLimited,
			"Another question of this kind is being answered. Ask again shortly.",
		},
		{"bad cursor", fmt.Errorf("list keys: %w", keystore.ErrBadCursor), problem.ValidationFailed, "The request has fields that cannot be accepted."},

		{"refused", fmt.Errorf("create key: %w", &keystore.RefusedError{Decision: policy.Decision{Reason: policy.KeyExpired}}), problem.KeyExpired, "This key has expired."},
		{"refused for nothing", &keystore.RefusedError{}, problem.InternalError, hidden},
		{"refused, although allowed", &keystore.RefusedError{Decision: policy.Decision{Reason: policy.Allowed}}, problem.InternalError, hidden},

		{"a problem, as it is", fmt.Errorf("wrapped: %w", problem.New(problem.AmbiguousPath, "As it is.")), problem.AmbiguousPath, "As it is."},
		{"a problem, whatever its cause", &problem.Problem{Code: problem.BodyTooLarge, Detail: "Too large.", Cause: keystore.ErrUnavailable}, problem.BodyTooLarge, "Too large."},
		{"unforeseen", inside, problem.InternalError, hidden},
		{"end of file", io.EOF, problem.InternalError, hidden},
		{"timeout", context.DeadlineExceeded, problem.InternalError, hidden},
		{"nothing", nil, problem.InternalError, hidden},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			p := problem.From(row.err)
			if p.Code != row.code || p.Detail != row.detail {
				t.Errorf("got %s %q, want %s %q", p.Code, p.Detail, row.code, row.detail)
			}
			w := httptest.NewRecorder()
			problem.Write(w, p, "id")
			for _, text := range []string{"10.1.2.3", "EOF", "deadline", "create key", "wrapped"} {
				if strings.Contains(w.Body.String(), text) {
					t.Errorf("the client sees %q in %s", text, w.Body)
				}
			}
			ours := p.Code == problem.KeyStoreUnavailable || p.Code == problem.InternalError && !strings.HasPrefix(row.name, "refused")
			if ours && row.err != nil && !errors.Is(p, row.err) {
				t.Errorf("the cause is %v: the log loses %v", p.Cause, row.err)
			}
		})
	}
}

func TestBusyUsageSaysWhenToAskAgain(t *testing.T) {
	t.Parallel()
	if p := problem.From(keystore.ErrUsageBusy); p.RetryAfter != 5*time.Second {
		t.Errorf("ask again in %v", p.RetryAfter)
	}
}

func TestRefusedChangesSayWhenToTryAgain(t *testing.T) {
	t.Parallel()
	for _, err := range []error{keystore.ErrReadOnly, keystore.ErrOlder, keystore.ErrUncertain} {
		if p := problem.From(err); p.RetryAfter <= 0 {
			t.Errorf("%v: try again in %v", err, p.RetryAfter)
		}
	}
}

func TestBadCursorNamesItsParameter(t *testing.T) {
	t.Parallel()
	if p := problem.From(keystore.ErrBadCursor); len(p.Fields) != 1 || p.Fields[0].Field != "cursor" {
		t.Errorf("the fields are %v, want cursor", p.Fields)
	}
}
