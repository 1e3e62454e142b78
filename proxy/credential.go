package proxy

import (
	"net/http"
	"strings"

	"gatehouse/proxy/problem"
)

// credentialOf returns the token that the request presents, in api-token or
// as a bearer token (RFC 6750 §2.1), and never from anywhere else. It refuses
// a request with none, with one header twice, or with two that differ.
func credentialOf(h http.Header) (string, error) {
	own, authorization := h["Api-Token"], h["Authorization"]
	switch {
	case len(own) == 0 && len(authorization) == 0:
		return "", missingCredentials("This request needs an API key: send it in the header api-token, or as Authorization: Bearer.")
	case len(own) > 1 || len(authorization) > 1:
		return "", ambiguousCredentials("a credential header is there more than once")
	case len(authorization) == 0:
		return own[0], nil
	}
	bearer, ok := bearerToken(authorization[0])
	switch {
	case !ok && len(own) == 0:
		return "", missingCredentials("This API takes keys only: send yours in the header api-token, or as Authorization: Bearer.")
	case len(own) == 1 && (!ok || own[0] != bearer):
		return "", ambiguousCredentials("api-token and Authorization say different things")
	}
	return bearer, nil
}

// bearerToken cuts the scheme, whose letter case does not count (RFC 9110 §11.1).
func bearerToken(authorization string) (string, bool) {
	scheme, token, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "Bearer") {
		return "", false
	}
	return strings.Trim(token, " "), true
}

func missingCredentials(detail string) error {
	return problem.New(problem.MissingCredentials, detail)
}

func ambiguousCredentials(fault string) error {
	return problem.New(problem.AmbiguousCredentials, "Show one API key, once: "+fault+".")
}
