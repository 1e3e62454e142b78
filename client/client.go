// Package client calls the key API of a Gatehouse gateway: it makes, restricts,
// watches, rotates and revokes the API keys of an account.
//
//	c, err := client.New(client.Options{BaseURL: "https://api.example.com", Token: os.Getenv("GATEHOUSE_TOKEN")})
//	created, err := c.Create(ctx, client.NewKey{Name: "CI", Permissions: []string{"datacenter_shared:read"}})
//
// It repeats only what is safe to repeat: see Options.Retries.
package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	defaultTimeout = 30 * time.Second
	defaultRetries = 2
	maxAnswer      = 64 << 20
)

// Options says which gateway is called, and as whom.
type Options struct {
	// BaseURL is the gateway's, such as https://api.example.com. It has no path.
	BaseURL string
	// Token is that of the key that makes the requests.
	Token string
	// HTTPClient makes the requests; nil for one with a timeout of 30 s. Its
	// redirects are not followed: they could carry the token elsewhere.
	HTTPClient *http.Client
	// UserAgent is sent with every request; "" for gatehouse-client.
	UserAgent string
	// Retries is how often a request is repeated; 0 for twice, and negative for
	// not at all. Reads are repeated after network errors and 429, 502, 503 and
	// 504; changes after 429 alone, because every other failure may have come
	// after the change.
	Retries int
}

// String hides the token from logs and errors.
func (o Options) String() string { return "options for " + o.BaseURL + " (token redacted)" }

// GoString hides the token from %#v.
func (o Options) GoString() string { return o.String() }

// Client calls one gateway with one key. It may be used concurrently.
type Client struct {
	base string
	// A pointer, because package fmt prints strings also out of fields whose
	// methods it cannot call.
	token   *string
	http    *http.Client
	agent   string
	retries int
}

// New makes a client. It returns an error for a URL that is more or less than
// scheme and host, and for a token that cannot be one; it makes no request.
func New(o Options) (*Client, error) {
	u, err := url.Parse(o.BaseURL)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil || u.Fragment != "" {
		return nil, errors.New("new client: the base URL must be of the form https://api.example.com")
	}
	if o.Token == "" || strings.ContainsFunc(o.Token, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return nil, errors.New("new client: a token is needed, as it was shown when its key was made")
	}
	c := &Client{base: u.Scheme + "://" + u.Host, token: &o.Token, agent: o.UserAgent, retries: o.Retries}
	if c.agent == "" {
		c.agent = "gatehouse-client"
	}
	if c.retries == 0 {
		c.retries = defaultRetries
	}
	own := http.Client{Timeout: defaultTimeout}
	if o.HTTPClient != nil {
		own = *o.HTTPClient
	}
	own.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.http = &own
	return c, nil
}

// call makes a request, repeats it where that is safe, and decodes the answer
// into out.
func (c *Client) call(ctx context.Context, method, path string, query url.Values, body, out any) error {
	var raw []byte
	if body != nil {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode request: %w", err)
		}
	}
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	for try := 0; ; try++ {
		answer, err := c.once(ctx, method, target, raw)
		if err == nil {
			return decode(answer, out)
		}
		if try >= c.retries || !repeatable(method, err) {
			return err
		}
		if err := wait(ctx, pause(try, err)); err != nil {
			return err
		}
	}
}

// once makes one request and returns the body of a successful answer.
func (c *Client) once(ctx context.Context, method, target string, body []byte) ([]byte, error) {
	var content io.Reader
	if body != nil {
		content = bytes.NewReader(body)
	}
	request, err := http.NewRequestWithContext(ctx, method, target, content)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	request.Header.Set("Api-Token", *c.token)
	request.Header.Set("Accept", "application/json, application/problem+json")
	request.Header.Set("User-Agent", c.agent)
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, &networkError{err}
	}
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	switch err = errors.Join(err, answer.Body.Close()); {
	case err != nil:
		return nil, &networkError{err}
	case len(raw) > maxAnswer:
		return nil, fmt.Errorf("the answer has more than %d bytes", maxAnswer)
	case answer.StatusCode < 200 || answer.StatusCode > 299:
		return nil, errorOf(answer, raw)
	}
	return raw, nil
}

func decode(raw []byte, out any) error {
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("the answer is not one of the key API: %w", err)
	}
	return nil
}
