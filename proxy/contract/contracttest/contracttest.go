// Package contracttest holds requests and answers of the key API against its
// OpenAPI description, so that the two cannot drift apart. It is for tests alone.
package contracttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"

	"gatehouse/proxy/keyapi"
)

// Contract is the description, compiled. It may be used concurrently.
type Contract struct {
	Document *openapi3.T
	router   routers.Router
}

// Load compiles the description, and refuses one that is not valid, examples
// included.
func Load() (*Contract, error) {
	source, err := keyapi.OpenAPI()
	if err != nil {
		return nil, fmt.Errorf("load contract: %w", err)
	}
	loader := openapi3.NewLoader()
	document, err := loader.LoadFromData(source)
	if err != nil {
		return nil, fmt.Errorf("load contract: %w", err)
	}
	if err := document.Validate(loader.Context); err != nil {
		return nil, fmt.Errorf("load contract: %w", err)
	}
	router, err := gorillamux.NewRouter(document)
	if err != nil {
		return nil, fmt.Errorf("load contract: %w", err)
	}
	return &Contract{Document: document, router: router}, nil
}

// Exchange is a request and the answer to it.
type Exchange struct {
	Method, Target string
	Header         http.Header
	Body           string
	Status         int
	AnswerHeader   http.Header
	Answer         string
}

// Check returns what an exchange has that the contract does not say: an answer
// always, and a request where it was granted. A method or path that the
// contract lacks is fine where the answer says that there is nothing there.
func (c *Contract) Check(ctx context.Context, e Exchange) error {
	target, err := url.ParseRequestURI(e.Target)
	if err != nil {
		return fmt.Errorf("target %s: %w", e.Target, err)
	}
	request := (&http.Request{Method: e.Method, URL: target, Header: e.Header, Body: io.NopCloser(strings.NewReader(e.Body)), ContentLength: int64(len(e.Body))}).WithContext(ctx)
	route, parameters, err := c.router.FindRoute(request)
	if err != nil {
		if e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed || e.Status == http.StatusBadRequest || e.Status == http.StatusNoContent {
			return nil
		}
		return fmt.Errorf("%s %s was answered %d, and is not in the contract: %w", e.Method, e.Target, e.Status, err)
	}
	input := &openapi3filter.RequestValidationInput{
		Request: request, PathParams: parameters, Route: route,
		Options: &openapi3filter.Options{
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true, MultiError: true,
		},
	}
	if e.Status < http.StatusMultipleChoices {
		if err := openapi3filter.ValidateRequest(ctx, input); err != nil {
			return fmt.Errorf("the request %s %s %s: %w", e.Method, e.Target, e.Body, err)
		}
	}
	answer := &openapi3filter.ResponseValidationInput{
		RequestValidationInput: input, Status: e.Status, Header: e.AnswerHeader, Options: input.Options,
	}
	answer.SetBodyBytes(bytes.Clone([]byte(e.Answer)))
	if err := openapi3filter.ValidateResponse(ctx, answer); err != nil {
		return fmt.Errorf("the answer %d %s to %s %s: %w", e.Status, e.Answer, e.Method, e.Target, err)
	}
	return nil
}
