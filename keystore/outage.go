package keystore

import (
	"context"
	"errors"
	"io"
	"net"
	"os"

	"github.com/redis/go-redis/v9"
)

// The reasons of an outage, as OutageReason returns them.
const (
	OutageTimeout     = "timeout"      // no answer in time
	OutageConnection  = "connection"   // no connection, or it broke
	OutageLoading     = "loading"      // the server is reading its data from disk
	OutageReadOnly    = "readonly"     // it takes no writes: a replica, too few replicas, or a failing disk
	OutageFull        = "full"         // its memory is full
	OutageClusterDown = "cluster_down" // the Cluster cannot say who has the key
	OutageMasterDown  = "master_down"  // a replica that has lost its master
	OutageAuth        = "auth"         // a wrong password, or too few rights
	OutageOverloaded  = "overloaded"   // too many requests wait, or too many clients are connected
	OutageEmptied     = "emptied"      // the store has lost its data or is another one
	OutageOlder       = "older"        // the store is older than what this node has seen of it
	OutageOther       = "other"
)

// OutageReasons returns every reason.
func OutageReasons() []string {
	return []string{
		OutageTimeout, OutageConnection, OutageLoading, OutageReadOnly, OutageFull, OutageClusterDown, OutageMasterDown,
		OutageAuth, OutageOverloaded, OutageEmptied, OutageOlder, OutageOther,
	}
}

// OutageReason says in one word why the store could not answer: one of
// OutageReasons, or "" for nil and for a caller that went away.
func OutageReason(err error) string {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return ""
	case errors.Is(err, errEmptied):
		return OutageEmptied
	case errors.Is(err, ErrOlder):
		return OutageOlder
	case errors.Is(err, errOverloaded), errors.Is(err, redis.ErrPoolTimeout), errors.Is(err, redis.ErrPoolExhausted):
		return OutageOverloaded
	}
	if reply := replyReason(err); reply != "" {
		return reply
	}
	var netErr net.Error
	switch {
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &netErr) && netErr.Timeout():
		return OutageTimeout
	case errors.As(err, &netErr), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed),
		errors.Is(err, redis.ErrClosed), errors.Is(err, errNotReached):
		return OutageConnection
	}
	return OutageOther
}

// replyReason is the reason that the server itself gave, "" for none.
func replyReason(err error) string {
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	switch {
	case redis.IsLoadingError(err):
		return OutageLoading
	case redis.IsReadOnlyError(err), redis.IsNoReplicasError(err), redis.HasErrorPrefix(err, "MISCONF"):
		return OutageReadOnly
	case redis.IsOOMError(err):
		return OutageFull
	case redis.IsClusterDownError(err), redis.IsTryAgainError(err), moved, ask:
		return OutageClusterDown
	case redis.IsMasterDownError(err):
		return OutageMasterDown
	case redis.IsAuthError(err), redis.IsPermissionError(err), redis.HasErrorPrefix(err, "WRONGPASS"), redis.HasErrorPrefix(err, "NOAUTH"):
		return OutageAuth
	case redis.IsMaxClientsError(err):
		return OutageOverloaded
	}
	return ""
}

// unanswered reports whether err says that the server did not answer at all. A
// reply that is an error is an answer.
func unanswered(err error) bool {
	var reply redis.Error
	return err != nil && !errors.As(err, &reply)
}

// redirects reports whether err says that another server, or the same one a
// little later, has the answer, and that the command was not executed.
func redirects(err error) bool {
	if err == nil {
		return false
	}
	_, moved := redis.IsMovedError(err)
	_, ask := redis.IsAskError(err)
	return moved || ask || redis.IsTryAgainError(err) || errors.Is(err, redis.ErrClosed)
}
