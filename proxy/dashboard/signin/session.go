package signin

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"github.com/alexedwards/scs/v2"
	"github.com/go-json-experiment/json"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// SessionStore is what the dashboard needs of keystore.Store for sessions.
type SessionStore interface {
	CreateSession(ctx context.Context, token string, n keystore.NewSession) error
	FindSession(ctx context.Context, token string) (*keystore.Session, error)
	TouchSession(ctx context.Context, token string, data []byte, expires time.Time) error
	EndSession(ctx context.Context, token string) error
	ListSessions(ctx context.Context, by policy.Caller, id keystore.UserID) ([]keystore.Session, error)
	RevokeSession(ctx context.Context, by policy.Caller, id keystore.UserID, session string) error
}

// cookieName has a prefix by which browsers take it from this host alone, over
// HTTPS alone, for all paths (RFC 6265bis §4.1.3).
const cookieName = "__Host-gatehouse"

// tokenLength is that of the manager's tokens: 32 random bytes in base64.
const tokenLength = 43

// newManager makes the manager of the sessions in the store. It is made by
// hand: scs.New starts a goroutine that nobody could stop without a race.
func newManager(store SessionStore, idle, absolute time.Duration) *scs.SessionManager {
	return &scs.SessionManager{
		Store: &scsStore{sessions: store}, Codec: codec{}, IdleTimeout: idle, Lifetime: absolute,
		Cookie: scs.SessionCookie{Name: cookieName, Path: "/", HttpOnly: true, Secure: true, SameSite: http.SameSiteLaxMode},
		ErrorFunc: func(w http.ResponseWriter, _ *http.Request, _ error) {
			http.Error(w, "The store does not answer at the moment. Try again shortly.", http.StatusServiceUnavailable)
		},
	}
}

// SetCookie gives the browser the session, for as long as it is open.
func (a *Authenticator) SetCookie(w http.ResponseWriter, s Session) {
	http.SetCookie(w, a.cookie(s.Token))
}

// ClearCookie has the browser forget its session.
func (a *Authenticator) ClearCookie(w http.ResponseWriter) {
	cookie := a.cookie("") //nolint:gosec // its attributes are those of the manager
	cookie.MaxAge = -1
	http.SetCookie(w, cookie)
}

func (a *Authenticator) cookie(token string) *http.Cookie {
	c := a.manager.Cookie
	return &http.Cookie{Name: c.Name, Value: token, Path: c.Path, HttpOnly: c.HttpOnly, Secure: c.Secure, SameSite: c.SameSite} //nolint:gosec // set by newManager
}

// TokenOf is the token of the one session that the request shows, "" where it
// shows none: a browser that was made to send two shows none. What cannot be a
// token is none either, so that the store is not asked about it.
func (a *Authenticator) TokenOf(r *http.Request) string {
	cookies := r.CookiesNamed(a.manager.Cookie.Name)
	if len(cookies) != 1 || len(cookies[0].Value) != tokenLength {
		return ""
	}
	if _, err := base64.RawURLEncoding.Strict().DecodeString(cookies[0].Value); err != nil {
		return ""
	}
	return cookies[0].Value
}

// beginning is the value of a session that is not stored yet: of whom it is.
// It is in no session that was read from the store, so that what is late
// cannot begin one anew that has ended.
type beginning struct {
	Account policy.AccountID `json:"account"`
	User    keystore.UserID  `json:"user"`
	Epoch   int64            `json:"epoch"`
	Client  netip.Addr       `json:"client"`
	Agent   string           `json:"agent"`
}

// beginKey is the key of that value.
const beginKey = "begin"

// providerKey is the key of the name of the provider that has vouched for the
// user when the session began. There is none after a password.
const providerKey = "provider"

// Provider is the name of the provider that vouched for the user when the
// session began, "" where a password was shown.
func Provider(ss *keystore.Session) string {
	_, values, err := codec{}.Decode(ss.Data)
	if err != nil {
		return ""
	}
	name, _ := values[providerKey].(string)
	return name
}

// content is what is stored of a session beside its user: the end that the
// manager has set it, and strings.
type content struct {
	Deadline int64             `json:"deadline"` // Unix milliseconds
	Values   map[string]string `json:"values"`
	Begin    *beginning        `json:"begin,omitempty"`
}

// codec spells sessions as JSON. Their values are strings.
type codec struct{}

func (codec) Encode(deadline time.Time, values map[string]any) ([]byte, error) {
	c := content{Deadline: deadline.UnixMilli(), Values: map[string]string{}}
	for key, value := range values {
		switch v := value.(type) {
		case string:
			c.Values[key] = v
		case beginning:
			c.Begin = &v
		default:
			return nil, fmt.Errorf("encode session: %s is a %T, and no string", key, value)
		}
	}
	return json.Marshal(c, json.Deterministic(true))
}

func (codec) Decode(raw []byte) (time.Time, map[string]any, error) {
	var c content
	if err := json.Unmarshal(raw, &c, json.RejectUnknownMembers(true)); err != nil {
		return time.Time{}, nil, fmt.Errorf("decode session: %w", err)
	}
	values := make(map[string]any, len(c.Values))
	for key, value := range c.Values {
		values[key] = value
	}
	return time.UnixMilli(c.Deadline).UTC(), values, nil
}

// scsStore gives a manager the sessions of the keystore.
type scsStore struct{ sessions SessionStore }

// FindCtx finds a session that its user and account let go on.
func (s *scsStore) FindCtx(ctx context.Context, token string) ([]byte, bool, error) {
	found, err := s.sessions.FindSession(ctx, token)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	return found.Data, true, nil
}

// CommitCtx begins a session, or goes on with one that has not ended.
func (s *scsStore) CommitCtx(ctx context.Context, token string, raw []byte, expires time.Time) error {
	var c content
	if err := json.Unmarshal(raw, &c, json.RejectUnknownMembers(true)); err != nil {
		return fmt.Errorf("commit session: %w", err)
	}
	if c.Begin == nil {
		return s.sessions.TouchSession(ctx, token, raw, expires)
	}
	b := *c.Begin
	c.Begin = nil
	data, err := json.Marshal(c, json.Deterministic(true))
	if err != nil {
		return fmt.Errorf("commit session: %w", err)
	}
	return s.sessions.CreateSession(ctx, token, keystore.NewSession{
		User:      keystore.User{ID: b.User, Account: b.Account, Epoch: b.Epoch},
		ExpiresAt: expires, EndsAt: time.UnixMilli(c.Deadline), Client: b.Client, Agent: b.Agent, Data: data,
	})
}

// DeleteCtx ends a session.
func (s *scsStore) DeleteCtx(ctx context.Context, token string) error {
	return s.sessions.EndSession(ctx, token)
}

var errNoContext = errors.New("sessions are asked for with a context")

// Find, Commit and Delete are never called: the manager knows of the others.
func (*scsStore) Find(string) ([]byte, bool, error)      { return nil, false, errNoContext }
func (*scsStore) Commit(string, []byte, time.Time) error { return errNoContext }
func (*scsStore) Delete(string) error                    { return errNoContext }

// bare is a context without values: a session that is begun in the course of
// a request must not be mixed with the one that the request came with.
type bare struct{ context.Context }

// Value has none.
func (bare) Value(any) any { return nil }
