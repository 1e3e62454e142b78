// Package config is the YAML configuration of the gatehouse command: types,
// defaults, strict loading and validation. It holds plain data, and opens,
// resolves and contacts nothing but the file itself.
package config

import (
	"net/netip"
	"time"

	"gatehouse/policy"
	"gatehouse/proxy"
	"gatehouse/proxy/dashboard"
	"gatehouse/proxy/keyapi"
)

// Config is a complete configuration. One that Load or Parse returned is
// valid; config.example.yaml documents every setting.
type Config struct {
	// Listen is the host:port of product traffic and the key API.
	Listen string `yaml:"listen"`
	// AdminListen is the host:port of the operators' side, which is never public.
	AdminListen string `yaml:"admin_listen"`
	// ListenH2C makes Listen serve HTTP/2 without TLS too.
	ListenH2C bool `yaml:"listen_h2c"`
	// AdminToken opens /admin/v1. Empty: /admin/v1 is off.
	AdminToken Secret `yaml:"admin_token"`
	// TLS is for Listen. Its zero value: plain HTTP.
	TLS TLS `yaml:"tls"`
	// ShutdownGrace is how long requests may go on after the signal to stop.
	ShutdownGrace time.Duration `yaml:"shutdown_grace"`
	Store         Store         `yaml:"store"`
	ClientAddress ClientAddress `yaml:"client_address"`
	Token         Token         `yaml:"token"`
	// Products are in the order of the file, which is the catalogue's.
	Products  []Product           `yaml:"products"`
	Upstreams map[string]Upstream `yaml:"upstreams"`
	Routes    []Route             `yaml:"routes"`
	Limits    Limits              `yaml:"limits"`
	// Plans are the rates of accounts' keys, by the name that an account gives.
	Plans      map[string]Rate `yaml:"plans"`
	Delegation Delegation      `yaml:"delegation"`
	Audit      Audit           `yaml:"audit"`
	CORS       CORS            `yaml:"cors"`
	Dashboard  Dashboard       `yaml:"dashboard"`
	Log        Log             `yaml:"log"`
	Tracing    Tracing         `yaml:"tracing"`
}

// TLS names the files of a certificate and its key: both or neither.
type TLS struct {
	CertFile string `yaml:"cert_file"`
	KeyFile  string `yaml:"key_file"`
}

// Store says where keys are kept: exactly one of Redis and Embedded is set.
type Store struct {
	Redis    *Redis    `yaml:"redis"`
	Embedded *Embedded `yaml:"embedded"`
	// Timeout is how long a lookup may take before it is refused with 503.
	Timeout time.Duration `yaml:"timeout"`
	Lookup  Lookup        `yaml:"lookup"`
	Cache   Cache         `yaml:"cache"`
	// StaleIfUnavailable is how long keys go on working while the store does
	// not answer; 0: not at all.
	StaleIfUnavailable time.Duration `yaml:"stale_if_unavailable"`
	// Durability is what must have happened before a change is acknowledged.
	Durability Durability `yaml:"durability"`
}

// Durability says how many replicas of Redis must have received a change before
// it is acknowledged, 0 for none, and how long it waits for them.
type Durability struct {
	Replicas int           `yaml:"replicas"`
	Timeout  time.Duration `yaml:"timeout"`
}

// Redis says how to reach Redis: one address is a single server, several are
// a Cluster, and with MasterName they are Sentinels. With URL, Addrs and what a
// URL says of credentials, database and TLS are not used.
type Redis struct {
	URL        Secret   `yaml:"url"`
	Addrs      []string `yaml:"addrs"`
	MasterName string   `yaml:"master_name"`
	Username   string   `yaml:"username"`
	Password   Secret   `yaml:"password"`
	// SentinelUsername and SentinelPassword are for the Sentinels themselves.
	SentinelUsername string `yaml:"sentinel_username"`
	SentinelPassword Secret `yaml:"sentinel_password"`
	DB               int    `yaml:"db"`
	// Prefix begins every key and channel.
	Prefix string   `yaml:"prefix"`
	TLS    RedisTLS `yaml:"tls"`
}

// RedisTLS says how the connection to Redis is encrypted. Without CAFile the
// system's certificates are trusted; without ServerName the host of the
// address is expected.
type RedisTLS struct {
	Enabled    bool   `yaml:"enabled"`
	CAFile     string `yaml:"ca_file"`
	CertFile   string `yaml:"cert_file"`
	KeyFile    string `yaml:"key_file"`
	ServerName string `yaml:"server_name"`
}

// Embedded keeps keys in a file of this one node.
type Embedded struct {
	File string `yaml:"file"`
}

// Lookup says when a key may be answered for without asking the store.
type Lookup string

// The two ways to look up.
const (
	LookupStrict Lookup = "strict"
	LookupCached Lookup = "cached"
)

// Cache bounds what the process remembers of the store: for how long, which
// counts for LookupCached alone, and how many keys, in both ways to look up.
type Cache struct {
	TTL     time.Duration `yaml:"ttl"`
	Entries int           `yaml:"entries"`
}

// ClientAddress says whose word is taken for the address of a client.
type ClientAddress struct {
	// TrustedProxies are canonical, and none of them is every address.
	TrustedProxies []netip.Prefix `yaml:"trusted_proxies"`
	// Header is X-Forwarded-For, Forwarded, or a header with a single value.
	Header string `yaml:"header"`
}

// Token says what tokens look like.
type Token struct {
	Prefix string `yaml:"prefix"`
	// WebSocketSubprotocol lets a WebSocket present its token as a subprotocol.
	WebSocketSubprotocol bool `yaml:"websocket_subprotocol"`
}

// Product is a resource of the catalogue and the actions on it.
type Product struct {
	Name    string   `yaml:"-"`
	Label   string   `yaml:"label"`
	Actions []string `yaml:"actions"`
}

// Route is one route as proxy.RouteSpec wants it, with its upstream by name.
type Route struct {
	Match      string                                  `yaml:"match"`
	Permission policy.Permission                       `yaml:"permission"`
	ByMethod   map[string]policy.Permission            `yaml:"by_method"`
	ByQuery    map[string]map[string]policy.Permission `yaml:"by_query"`
	Upstream   string                                  `yaml:"upstream"`
	WebSocket  bool                                    `yaml:"websocket"`
	// MaxBody is the largest body on this route; 0: as Limits says.
	MaxBody Bytes `yaml:"max_body"`
	// Timeout is the upstream's on this route; 0: as the upstream says.
	Timeout time.Duration `yaml:"timeout"`
	// Limit is for the requests of one key to this route; nil: those of the
	// key's plan or of all keys count.
	Limit *Rate `yaml:"limit"`
}

// LimitScope says what the rate of a key counts for.
type LimitScope string

// The two scopes.
const (
	ScopeNode    LimitScope = "node"
	ScopeCluster LimitScope = "cluster"
)

// Limits bound what is taken from a client.
type Limits struct {
	// Scope says whether rates of keys count on each node, or on all of them.
	Scope LimitScope `yaml:"scope"`
	// Key is for the requests of one key.
	Key Rate `yaml:"key"`
	// InFlight is how many requests of one key may be under way on a node at a
	// time; 0: any number.
	InFlight int `yaml:"in_flight"`
	// Management is for what one key asks of the key API.
	Management Rate `yaml:"management"`
	// FailedAuth is for the unknown tokens from one address.
	FailedAuth Rate  `yaml:"failed_auth"`
	MaxBody    Bytes `yaml:"max_body"`
	MaxHeader  Bytes `yaml:"max_header"`
	// MaxHeaderLines is how many header lines a request may have.
	MaxHeaderLines int `yaml:"max_header_lines"`
	// HeaderTimeout is how long the head of a request may take, and IdleTimeout
	// how long a connection may be without a request.
	HeaderTimeout time.Duration `yaml:"header_timeout"`
	IdleTimeout   time.Duration `yaml:"idle_timeout"`
	// MinBodyRate is how many bytes a second of a body must come. 0: any number.
	MinBodyRate Bytes       `yaml:"min_body_rate"`
	Connections Connections `yaml:"connections"`
	HTTP2       HTTP2       `yaml:"http2"`
}

// Connections bounds how many there are, in all and from one address that is
// no trusted proxy. 0: no limit.
type Connections struct {
	Total      int `yaml:"total"`
	PerAddress int `yaml:"per_address"`
}

// HTTP2 bounds each HTTP/2 connection.
type HTTP2 struct {
	// MaxStreams is how many requests it may carry at a time.
	MaxStreams int `yaml:"max_streams"`
}

// Rate is so many a second, with bursts. A Rate of 0: no limit.
type Rate struct {
	Rate  float64 `yaml:"rate"`
	Burst int     `yaml:"burst"`
}

// Delegation says what a key hands on to the keys that it makes.
type Delegation struct {
	InheritIPs        bool `yaml:"inherit_ips"`
	CapExpiry         bool `yaml:"cap_expiry"`
	MaxKeysPerAccount int  `yaml:"max_keys_per_account"`
}

// Audit says how much of each account's audit trail is kept.
type Audit struct {
	Keep AuditKeep `yaml:"keep"`
}

// AuditKeep bounds an audit trail: the last so-many events that were carried
// out, and as many that were refused, none older than Age.
type AuditKeep struct {
	Events int           `yaml:"events"`
	Age    time.Duration `yaml:"age"`
}

// CORS names the origins whose pages may use the key API from a browser, each
// as SCHEME://HOST[:PORT].
type CORS struct {
	Origins []string `yaml:"origins"`
}

// Dashboard is where people sign in and manage keys.
type Dashboard struct {
	Enabled bool `yaml:"enabled"`
	// Host is the only host name that it is served on, "" for every one.
	Host string `yaml:"host"`
	// APIURL is the URL of the API as customers call it, "" for that of the pages.
	APIURL  string  `yaml:"api_url"`
	Brand   Brand   `yaml:"brand"`
	Session Session `yaml:"session"`
	// URL is where people find it: identity providers send them back there.
	URL string `yaml:"url"`
	// PasswordSignIn lets people sign in with a password.
	PasswordSignIn bool `yaml:"password_sign_in"`
	// Providers are those by which people may sign in.
	Providers []IdentityProvider `yaml:"providers"`
}

// Brand is how the dashboard shows whose it is.
type Brand struct {
	Name     string `yaml:"name"`
	LogoFile string `yaml:"logo_file"`
	Accent   string `yaml:"accent"`
	Docs     string `yaml:"docs"`
}

// Session says when a person who is signed in is not any more.
type Session struct {
	// Idle is how long after its last use a session ends.
	Idle time.Duration `yaml:"idle"`
	// Absolute is how long after the sign-in it ends in any case.
	Absolute time.Duration `yaml:"absolute"`
}

// defaulter is a type whose settings have defaults other than zero.
type defaulter interface{ setDefaults() }

func (c *Config) setDefaults() {
	*c = Config{
		Listen:        ":8080",
		AdminListen:   "127.0.0.1:9090",
		ShutdownGrace: 30 * time.Second,
		Store: Store{
			Timeout: 250 * time.Millisecond,
			Lookup:  LookupStrict,
			Cache:   Cache{TTL: 5 * time.Second, Entries: 100_000},

			Durability: Durability{Timeout: time.Second},
		},
		ClientAddress: ClientAddress{TrustedProxies: []netip.Prefix{}, Header: "X-Forwarded-For"},
		Token:         Token{Prefix: "gk_"},
		Limits: Limits{
			Scope:      ScopeNode,
			InFlight:   1000,
			Management: Rate{Rate: 10, Burst: 50},
			FailedAuth: Rate{Rate: 1, Burst: 20},
			MaxBody:    10 << 20,
			MaxHeader:  32 << 10,

			MaxHeaderLines: 100, HeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MinBodyRate: 240,
			Connections: Connections{Total: 20_000, PerAddress: 2000}, HTTP2: HTTP2{MaxStreams: 250},
		},
		Delegation: Delegation{MaxKeysPerAccount: 1000},
		Audit:      Audit{Keep: AuditKeep{Events: 10_000, Age: 400 * 24 * time.Hour}},
		CORS:       CORS{Origins: []string{}},
		Dashboard: Dashboard{
			Enabled: true, PasswordSignIn: true, Providers: []IdentityProvider{}, Brand: Brand{Name: "Gatehouse", Accent: "#3451d1"},
			Session: Session{Idle: 30 * time.Minute, Absolute: 12 * time.Hour},
		},
		Log:     Log{Level: "info", Modules: map[string]string{}, Sample: 1, Buffer: 4 << 20, Format: LogJSON},
		Tracing: Tracing{Protocol: OTLPgRPC, Sample: 0.1, Timeout: 5 * time.Second, Headers: map[string]Secret{}},
	}
}

func (r *Redis) setDefaults() {
	*r = Redis{Addrs: []string{"127.0.0.1:6379"}, Prefix: "gatehouse:"}
}

func (e *Embedded) setDefaults() { *e = Embedded{File: "gatehouse.db.jsonl"} }

func (p *Product) setName(name string) { p.Name = name }

// Catalogue returns the permissions of the products in their order, and the
// built-in ones. It has no error for a valid configuration.
func (c *Config) Catalogue() (policy.Catalogue, error) {
	var permissions []policy.Permission
	for _, product := range c.Products {
		for _, action := range product.Actions {
			permissions = append(permissions, policy.Permission(product.Name+":"+action))
		}
	}
	return policy.NewCatalogue(permissions...)
}

// Reserved returns the paths below which no product can have a route.
func (c *Config) Reserved() []string {
	reserved := keyapi.Reserved()
	if c.Dashboard.Enabled && c.Dashboard.Host == "" {
		reserved = append(reserved, dashboard.Prefix)
	}
	return reserved
}

// RouteSpecs returns the routes in their order, each with the backend of its
// upstream. It does so for a valid configuration alone.
func (c *Config) RouteSpecs(backend func(upstream string) proxy.Backend) []proxy.RouteSpec {
	specs := make([]proxy.RouteSpec, len(c.Routes))
	for i, route := range c.Routes {
		specs[i] = proxy.RouteSpec{
			Match: route.Match, Permission: route.Permission, ByMethod: route.ByMethod, Backend: backend(route.Upstream),
			WebSocket: route.WebSocket, MaxBody: int64(route.MaxBody),
			Timeout: route.Timeout,
		}
		for parameter, permissions := range route.ByQuery {
			specs[i].ByQuery = proxy.QueryRule{Parameter: parameter, Permissions: permissions}
		}
	}
	return specs
}
