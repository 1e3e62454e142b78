package config

import (
	"reflect"
	"slices"
	"strings"
	"time"

	"gatehouse/policy"
	"gatehouse/proxy/contract"
)

// Decisions are accounts and keys that a file describes, and what a
// configuration is expected to decide about their requests.
// docs/decisions.example.yaml shows every setting.
type Decisions struct {
	Accounts map[string]DecisionAccount `yaml:"accounts"`
	Keys     map[string]DecisionKey     `yaml:"keys"`
	Tests    []DecisionTest             `yaml:"tests"`
}

// DecisionAccount describes an account, by its id.
type DecisionAccount struct {
	Permissions []string `yaml:"permissions"`
	Subaccounts []string `yaml:"subaccounts"`
	Status      string   `yaml:"status"`

	rules policy.Account `yaml:"-"`
}

// DecisionKey describes a key, in the words of the key API.
type DecisionKey struct {
	Account            string   `yaml:"account"`
	Permissions        []string `yaml:"permissions"`
	AllowedSubaccounts []string `yaml:"allowed_subaccounts"`
	AllowedIPs         []string `yaml:"allowed_ips"`
	ExpiresAt          string   `yaml:"expires_at"`
	IsActive           bool     `yaml:"is_active"`

	key policy.Key `yaml:"-"`
}

// DecisionTest is a request and what is to become of it.
type DecisionTest struct {
	Name string `yaml:"name"`
	// Request is a method and a URL, or a path alone.
	Request string   `yaml:"request"`
	Key     string   `yaml:"key"` // "": only what the headers show
	Client  string   `yaml:"client"`
	Headers []string `yaml:"headers"`
	// At is when the request comes, as in RFC 3339; "": now.
	At string `yaml:"at"`
	// Expect is "allowed", "preflight" or an error code. What else is expected
	// is only looked at where it is given.
	Expect     string `yaml:"expect"`
	Permission string `yaml:"permission"`
	Subaccount string `yaml:"subaccount"`
	Upstream   string `yaml:"upstream"`

	// Line and Column are where the test is in its file.
	Line   int `yaml:"-"`
	Column int `yaml:"-"`
}

func (a *DecisionAccount) setDefaults() { *a = DecisionAccount{Status: string(policy.Active)} }

func (k *DecisionKey) setDefaults() { *k = DecisionKey{IsActive: true} }

// someAddress is one that nobody has (RFC 5737 §3).
const someAddress = "192.0.2.1"

func (t *DecisionTest) setDefaults() { *t = DecisionTest{Client: someAddress} }

// LoadDecisions reads the file and parses it, as ParseDecisions does.
func LoadDecisions(file string, c *Config, lookupEnv func(string) (string, bool)) (*Decisions, error) {
	data, err := readFile(file, "the decisions")
	if err != nil {
		return nil, err
	}
	return ParseDecisions(file, data, c, lookupEnv)
}

// ParseDecisions reads YAML text as strictly as Parse does. What it names must
// be in the configuration. The error is Problems.
func ParseDecisions(name string, data []byte, c *Config, lookupEnv func(string) (string, bool)) (*Decisions, error) {
	src := newSource(name)
	src.example = "docs/decisions.example.yaml"
	ds := &Decisions{}
	if root, ok := src.parse(data); ok {
		d := decoder{source: src, lookupEnv: lookupEnv}
		d.decode(nil, root, reflect.ValueOf(ds).Elem())
		v := decisionValidator{validator: &validator{source: src, config: c}, decisions: ds}
		v.validate()
	}
	if len(src.problems) > 0 {
		slices.SortStableFunc(src.problems, byPosition)
		return nil, src.problems
	}
	for i := range ds.Tests {
		at := src.positions[path{"tests"}.index(i).String()]
		ds.Tests[i].Line, ds.Tests[i].Column = at.line, at.column
	}
	return ds, nil
}

// Key returns the key of the name and its account; false where the file has
// none.
func (ds *Decisions) Key(name string) (*policy.Key, *policy.Account, bool) {
	k, ok := ds.Keys[name]
	if !ok {
		return nil, nil, false
	}
	account := ds.Accounts[k.Account].rules
	return &k.key, &account, true
}

// Asked is the request of the test; an error only where that is not valid.
func (t *DecisionTest) Asked() (contract.ExplainedRequest, error) {
	method, url, _ := strings.Cut(t.Request, " ")
	return contract.Explain{Method: method, URL: url, ClientAddress: t.Client, Headers: t.Headers}.Parse()
}

// Moment is when the request of a valid test comes; zero for now.
func (t *DecisionTest) Moment() time.Time {
	at, _ := time.Parse(time.RFC3339, t.At) // was validated
	return at
}
