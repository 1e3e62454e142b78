// Package signin proves who people are, and keeps their sessions. It decides
// nothing about keys, and has no pages: package dashboard has.
package signin

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alexedwards/scs/v2"
	"go.uber.org/zap"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/password"
)

// What signing in can end with, beside errors of the store and *TooManyError.
var (
	// ErrRefused: e-mail address, password or code are wrong, or nobody may
	// sign in with them. It does not say which.
	ErrRefused = errors.New("sign-in refused")
	// ErrCodeNeeded: the password is right, and a code is asked for too.
	ErrCodeNeeded = errors.New("a code of the authenticator is needed")
	// ErrNoSession: nobody is signed in, or not any more.
	ErrNoSession = keystore.ErrNoSession
	// ErrMustChange: the user has to choose a password before anything else.
	ErrMustChange = errors.New("the password must be changed first")
	// ErrUnknownPerson: a provider vouches for somebody who is no user here, or
	// may not be the one whose address it is.
	ErrUnknownPerson = errors.New("no user is who the provider vouches for")
	// ErrSamePassword: the new password is the old one.
	ErrSamePassword = errors.New("the new password is the old one")
	// ErrWrongCode: the password is right, and the code of the authenticator is not.
	ErrWrongCode = errors.New("the code is wrong, or was used before")
	// ErrOfferOver: the secret is none that this session was offered lately.
	ErrOfferOver = errors.New("the offer of a secret is over")
	// ErrHasTOTP: an authenticator is set up, and has to be removed first.
	ErrHasTOTP = errors.New("an authenticator is set up already")
)

// Users is what the dashboard needs of keystore.Store for users.
type Users interface {
	UserByEmail(ctx context.Context, e keystore.Email) (*keystore.SignInUser, error)
	UserByIdentity(ctx context.Context, i keystore.Identity) (*keystore.SignInUser, error)
	Rules(ctx context.Context, id policy.AccountID) (*policy.Account, error)
	CreateUser(ctx context.Context, by policy.Caller, u keystore.NewUser) (keystore.User, error)
	UserForSignIn(ctx context.Context, by policy.Caller, id keystore.UserID) (*keystore.SignInUser, error)
	SignedIn(ctx context.Context, by policy.Caller, u *keystore.SignInUser, in keystore.SignIn) (keystore.User, error)
	ChangePassword(ctx context.Context, by policy.Caller, proven *keystore.SignInUser, hash string) (keystore.User, error)
	ChangeTOTP(ctx context.Context, by policy.Caller, proven *keystore.SignInUser, secret string, step int64, recovery []string) (keystore.User, error)
	EndSessions(ctx context.Context, by policy.Caller, id keystore.UserID) error
}

// Options is what an Authenticator is made of. All are needed but the rates,
// whose zero values stand for the default.
type Options struct {
	Users     Users
	Sessions  SessionStore
	Passwords *password.Hasher
	// Idle ends a session that is not used, and Absolute every session.
	Idle, Absolute time.Duration
	// NoPasswords refuses every sign-in with a password.
	NoPasswords bool
	// PerAddress and PerNetwork bound attempts to sign in on this node by where
	// they come from, PerPair and PerEmail those with an e-mail address from one
	// address and from everywhere, and PerUser those of who is signed in to prove
	// the password once more.
	PerAddress, PerNetwork, PerPair, PerEmail, PerUser Rate
	// Counted is told of every attempt to sign in; nil for nobody.
	Counted func(m Method, outcome Outcome)
	Now     func() time.Time
	Log     *zap.Logger
}

// Authenticator signs people in and out. It may be used concurrently.
type Authenticator struct {
	o       Options
	manager *scs.SessionManager
	limits  limits
	busy    atomic.Bool // the hasher has refused the last password
}

// New makes an Authenticator.
func New(o Options) (*Authenticator, error) {
	if o.Users == nil || o.Sessions == nil || o.Passwords == nil || o.Now == nil || o.Log == nil || o.Idle <= 0 || o.Absolute <= 0 {
		return nil, errors.New("new authenticator: an option is missing")
	}
	return &Authenticator{o: o, manager: newManager(o.Sessions, o.Idle, o.Absolute), limits: newLimits(o)}, nil
}

// Manager is the manager of the sessions, for their cookie and for values that
// pages keep in them: strings alone. Signing in and out is the Authenticator's.
func (a *Authenticator) Manager() *scs.SessionManager { return a.manager }

// From is where a request of a person comes from.
type From struct {
	Client    netip.Addr
	Agent     string // the User-Agent, as the list of sessions shows it
	RequestID string
}

// maxAgent bounds what is kept of a User-Agent, in bytes.
const maxAgent = 256

func (f From) agent() string {
	return strings.ToValidUTF8(f.Agent[:min(len(f.Agent), maxAgent)], "") // the cut may be inside a character
}

// Proof is what a person signs in with: e-mail address and password, or the
// ticket of a *CodeNeededError in place of both. Code is of the authenticator,
// or a recovery code; "" where none was asked for yet.
type Proof struct{ Email, Password, Ticket, Code string }

// String hides the proof from logs and errors.
func (Proof) String() string { return "proof(redacted)" }

// GoString hides the proof from %#v.
func (Proof) GoString() string { return "proof(redacted)" }

// Session is a session that has begun. Its token goes into the cookie, and
// nowhere else.
type Session struct {
	Token     string
	ExpiresAt time.Time
	User      keystore.User
}

// String hides the token from logs and errors.
func (Session) String() string { return "session(redacted)" }

// GoString hides the token from %#v.
func (Session) GoString() string { return "session(redacted)" }

// Find returns the session of the token, and lets it go on. It returns
// ErrNoSession, also for one whose user or account may not sign in any more.
func (a *Authenticator) Find(ctx context.Context, token string) (*keystore.Session, error) {
	found, err := a.o.Sessions.FindSession(ctx, token)
	if errors.Is(err, keystore.ErrNotFound) {
		return nil, ErrNoSession
	}
	if err != nil {
		return nil, err
	}
	if err := a.o.Sessions.TouchSession(ctx, token, found.Data, a.o.Now().Add(a.o.Idle)); err != nil {
		return nil, err
	}
	return found, nil
}

// Caller is the person of the session as the rules know it: it may do what its
// account may. It returns ErrMustChange in a session that was begun with a
// password which its owner has not chosen.
func (a *Authenticator) Caller(ss *keystore.Session, from From) (policy.Caller, error) {
	if ss.User.MustChange && Provider(ss) == "" {
		return policy.Caller{}, ErrMustChange
	}
	return ss.Caller(from.Client, from.RequestID), nil
}

// SignOut ends the session of the token.
func (a *Authenticator) SignOut(ctx context.Context, token string) error {
	return a.o.Sessions.EndSession(ctx, token)
}

// SignOutEverywhere ends all sessions of the user, this one too.
func (a *Authenticator) SignOutEverywhere(ctx context.Context, ss *keystore.Session, from From) error {
	return a.o.Users.EndSessions(ctx, ss.Caller(from.Client, from.RequestID), ss.User.ID)
}

// Sessions returns the user's sessions that go on, the newest first.
func (a *Authenticator) Sessions(ctx context.Context, ss *keystore.Session, from From) ([]keystore.Session, error) {
	return a.o.Sessions.ListSessions(ctx, ss.Caller(from.Client, from.RequestID), ss.User.ID)
}

// Revoke ends one of the user's sessions, or returns keystore.ErrNotFound.
func (a *Authenticator) Revoke(ctx context.Context, ss *keystore.Session, from From, id string) error {
	return a.o.Sessions.RevokeSession(ctx, ss.Caller(from.Client, from.RequestID), ss.User.ID, id)
}

// begin begins a session of a user who has proven itself, with a password, or
// to the provider of that name. Its token is always a new one.
func (a *Authenticator) begin(ctx context.Context, u keystore.User, from From, provider string) (Session, error) {
	ctx, err := a.manager.Load(bare{ctx}, "")
	if err != nil {
		return Session{}, fmt.Errorf("begin session: %w", err)
	}
	a.manager.Put(ctx, beginKey, beginning{Account: u.Account, User: u.ID, Epoch: u.Epoch, Client: from.Client, Agent: from.agent()}) //nolint:contextcheck // the request's, less its values
	if provider != "" {
		a.manager.Put(ctx, providerKey, provider) //nolint:contextcheck // likewise
	}
	token, expires, err := a.manager.Commit(ctx) //nolint:contextcheck // likewise
	if errors.Is(err, keystore.ErrNotFound) {
		return Session{}, ErrRefused // signed out everywhere meanwhile
	}
	if err != nil {
		return Session{}, fmt.Errorf("begin session: %w", err)
	}
	return Session{Token: token, ExpiresAt: expires, User: u}, nil
}
