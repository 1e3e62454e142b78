package problem

import (
	"net/http"

	"gatehouse/policy"
)

// Code is an error code of the contract: the "error" member of an answer, the
// "reason" label of metrics and the "reason" field of the access log.
type Code string

// Every code there is. The refusals of policy.Decide keep its words.
const (
	AmbiguousPath        Code = "ambiguous_path"
	UnknownRoute         Code = "unknown_route"
	MethodNotAllowed     Code = "method_not_allowed"
	AmbiguousQuery       Code = "ambiguous_query"
	MissingCredentials   Code = "missing_credentials"
	AmbiguousCredentials Code = "ambiguous_credentials"
	InvalidToken         Code = "invalid_token"
	RateLimited          Code = "rate_limited"
	KeyStoreUnavailable  Code = "key_store_unavailable"
	KeyDisabled               = Code(policy.KeyDisabled)
	AccountSuspended          = Code(policy.AccountSuspended)
	KeyExpired                = Code(policy.KeyExpired)
	IPNotAllowed              = Code(policy.IPNotAllowed)
	SubaccountNotAllowed      = Code(policy.SubaccountNotAllowed)
	PermissionDenied          = Code(policy.PermissionDenied)

	UpstreamUnreachable Code = "upstream_unreachable"
	UpstreamTimeout     Code = "upstream_timeout"
	UpstreamOverloaded  Code = "upstream_overloaded"

	PermissionNotGrantable Code = "permission_not_grantable"
	SubaccountNotGrantable Code = "subaccount_not_grantable"
	ExceedsYourAccess      Code = "exceeds_your_access"
	KeyInUse               Code = "key_in_use"
	KeyLimitReached        Code = "key_limit_reached"
	Conflict               Code = "conflict"

	NotFound             Code = "not_found"
	MethodNotImplemented Code = "method_not_implemented"
	HeaderTooLarge       Code = "header_too_large"
	RequestTimeout       Code = "request_timeout"
	InvalidRequest       Code = "invalid_request"
	ValidationFailed     Code = "validation_failed"
	BodyTooLarge         Code = "body_too_large"
	UnsupportedMediaType Code = "unsupported_media_type"
	InternalError        Code = "internal_error"
)

// Codes returns every code, in the order of the contract.
func Codes() []Code {
	return []Code{
		AmbiguousPath, UnknownRoute, MethodNotAllowed, AmbiguousQuery, MissingCredentials, AmbiguousCredentials,
		InvalidToken, RateLimited, KeyStoreUnavailable, KeyDisabled, AccountSuspended, KeyExpired, IPNotAllowed,
		SubaccountNotAllowed, PermissionDenied, UpstreamUnreachable, UpstreamTimeout, UpstreamOverloaded,
		PermissionNotGrantable, SubaccountNotGrantable, ExceedsYourAccess, KeyInUse, KeyLimitReached, Conflict,
		NotFound, MethodNotImplemented, HeaderTooLarge, RequestTimeout, InvalidRequest, ValidationFailed, BodyTooLarge, UnsupportedMediaType, InternalError,
	}
}

// Status is the HTTP status of the code; 0 for one that does not exist.
func (c Code) Status() int {
	switch c {
	case AmbiguousPath, AmbiguousQuery, AmbiguousCredentials, InvalidRequest:
		return http.StatusBadRequest
	case MissingCredentials, InvalidToken, KeyDisabled, KeyExpired:
		return http.StatusUnauthorized
	case AccountSuspended, IPNotAllowed, SubaccountNotAllowed, PermissionDenied,
		PermissionNotGrantable, SubaccountNotGrantable, ExceedsYourAccess:
		return http.StatusForbidden
	case UnknownRoute, NotFound:
		return http.StatusNotFound
	case MethodNotAllowed:
		return http.StatusMethodNotAllowed
	case RequestTimeout:
		return http.StatusRequestTimeout
	case HeaderTooLarge:
		return http.StatusRequestHeaderFieldsTooLarge
	case MethodNotImplemented:
		return http.StatusNotImplemented
	case KeyInUse, KeyLimitReached, Conflict:
		return http.StatusConflict
	case BodyTooLarge:
		return http.StatusRequestEntityTooLarge
	case UnsupportedMediaType:
		return http.StatusUnsupportedMediaType
	case ValidationFailed:
		return http.StatusUnprocessableEntity
	case RateLimited:
		return http.StatusTooManyRequests
	case InternalError:
		return http.StatusInternalServerError
	case UpstreamUnreachable:
		return http.StatusBadGateway
	case KeyStoreUnavailable, UpstreamOverloaded:
		return http.StatusServiceUnavailable
	case UpstreamTimeout:
		return http.StatusGatewayTimeout
	}
	return 0
}
