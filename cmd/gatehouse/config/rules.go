package config

import (
	"fmt"
	"strconv"
	"strings"
)

// rule is what a value is held to beyond its type, and what no type says, as far
// as a schema can say it. What the validator refuses may be more, and never
// less: TestSchemaAndLoaderAgree.
type rule struct {
	required  bool
	inherits  bool   // left out, another setting counts
	words     string // the type in plain words, where the Go type says too little
	least     *float64
	most      *float64
	aboveZero bool   // a duration or size is above 0
	pattern   string // of a text
	nonEmpty  bool   // a text, list or mapping
	unique    bool   // a list
	single    bool   // a mapping with one entry
	oneOf     []string
	names     string   // the pattern of a mapping's names
	namesOf   []string // or the names themselves
	reserved  string   // a name that is not one
	exactly   []string // settings of which exactly one is there
	some      []string // settings of which at least one is there
}

// chosen is a text of a few values.
type chosen interface{ choices() []string }

func (Lookup) choices() []string { return []string{string(LookupStrict), string(LookupCached)} }

func (LimitScope) choices() []string { return []string{string(ScopeNode), string(ScopeCluster)} }

func (LogFormat) choices() []string { return []string{string(LogJSON), string(LogConsole)} }

func (OTLPProtocol) choices() []string { return []string{string(OTLPgRPC), string(OTLPHTTP)} }

// The patterns of texts, in what Go's regular expressions and those of
// ECMAScript have in common.
const (
	hostPortPattern   = `^(?:[A-Za-z0-9._-]*|\[[^\[\]]*\]):[0-9]+$`
	serverPattern     = `^(?:[A-Za-z0-9._-]+|\[[^\[\]]+\]):[0-9]+$`
	namePattern       = `^[a-z0-9_]+$`
	idPattern         = `^[A-Za-z0-9._-]{1,64}$`
	unreservedPattern = `^[A-Za-z0-9._~-]+$`
	httpScheme        = `[Hh][Tt][Tt][Pp][Ss]?://`
	trustedScheme     = `(?:[Hh][Tt][Tt][Pp][Ss]://|[Hh][Tt][Tt][Pp]://(?:localhost|127\.|\[))` // see isTrusted
)

// rules are what settings are held to, by name.
func rules() map[string]rule {
	all := map[string]rule{
		"listen":         {words: "HOST:PORT", pattern: hostPortPattern},
		"admin_listen":   {words: "HOST:PORT", pattern: hostPortPattern},
		"admin_token":    {pattern: `^(?:[!-~]{16,})?$`},
		"shutdown_grace": {aboveZero: true},

		"client_address.header": {words: "name of a header", pattern: "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"},
		"token.prefix":          {pattern: `^[a-z0-9_]{2,8}$`},

		"products":                {required: true, nonEmpty: true, names: namePattern, reserved: "account"},
		"products.NAME.label":     {required: true, pattern: `\S`},
		"products.NAME.actions":   {required: true, nonEmpty: true, unique: true},
		"products.NAME.actions[]": {pattern: namePattern},

		"cors.origins":   {unique: true},
		"cors.origins[]": {words: "origin", pattern: `^https?://[^/?#@A-Z]+$`},

		"delegation.max_keys_per_account": {least: number(1)},
		"audit.keep.events":               {least: number(1)},
		"audit.keep.age":                  {aboveZero: true},
	}
	for _, more := range []map[string]rule{storeRules(), routeRules(), limitRules(), dashboardRules(), telemetryRules()} {
		for name, r := range more {
			all[name] = r
		}
	}
	return all
}

func storeRules() map[string]rule {
	return map[string]rule{
		"store":               {required: true, exactly: []string{"redis", "embedded"}},
		"store.redis.url":     {words: "URL", pattern: `^$|^[Rr][Ee][Dd][Ii][Ss][Ss]?://[^/?#]+`},
		"store.redis.addrs":   {nonEmpty: true, unique: true},
		"store.redis.addrs[]": {words: "HOST:PORT", pattern: serverPattern},
		"store.redis.db":      {least: number(0)},
		"store.redis.prefix":  {pattern: `^[A-Za-z0-9._:/-]*$`},
		"store.embedded.file": {nonEmpty: true},
		"store.timeout":       {aboveZero: true},
		"store.cache.entries": {least: number(1), most: number(10_000_000)},

		"store.durability.replicas": {least: number(0), most: number(10)},
		"store.durability.timeout":  {aboveZero: true},
	}
}

func routeRules() map[string]rule {
	return map[string]rule{
		"upstreams":                             {required: true, nonEmpty: true, names: idPattern},
		"upstreams.NAME.targets":                {required: true, nonEmpty: true},
		"upstreams.NAME.targets[]":              {pattern: `^(?:[Hh]2[Cc]://|` + httpScheme + `)[^/?@]+$`},
		"upstreams.NAME.timeout":                {aboveZero: true},
		"upstreams.NAME.max_in_flight":          {least: number(1)},
		"upstreams.NAME.max_connection_age":     {aboveZero: true},
		"upstreams.NAME.ejection.failures":      {least: number(1)},
		"upstreams.NAME.ejection.backoff":       {aboveZero: true},
		"upstreams.NAME.ejection.max_backoff":   {aboveZero: true},
		"upstreams.NAME.health_check.path":      {required: true, pattern: `^/`},
		"upstreams.NAME.health_check.interval":  {aboveZero: true},
		"upstreams.NAME.health_check.timeout":   {aboveZero: true},
		"upstreams.NAME.health_check.healthy":   {least: number(1)},
		"upstreams.NAME.health_check.unhealthy": {least: number(1)},

		"routes":                 {required: true, nonEmpty: true},
		"routes[]":               {exactly: []string{"permission", "by_method", "by_query"}},
		"routes[].match":         {required: true, pattern: `^(?:(?:` + strings.Join(routeMethods(), "|") + `)[ \t]+)?[^/]*/(?:[^/]|$)`},
		"routes[].permission":    {inherits: true},
		"routes[].by_method":     {inherits: true, words: "mapping from methods to permissions", nonEmpty: true, namesOf: routeMethods()},
		"routes[].by_query":      {inherits: true, words: "mapping from one parameter, and its values, to permissions", single: true, names: unreservedPattern},
		"routes[].by_query.NAME": {nonEmpty: true, names: unreservedPattern},
		"routes[].upstream":      {required: true, words: "name of an upstream", pattern: idPattern},
		"routes[].timeout":       {aboveZero: true, inherits: true},
		"routes[].max_body":      {aboveZero: true, inherits: true},
		"routes[].limit.rate":    {required: true, least: number(0), most: number(1e6)},
		"routes[].limit.burst":   {least: number(0), most: number(1e6)},
		"plans":                  {names: idPattern},
		"plans.NAME.rate":        {required: true, least: number(0), most: number(1e6)},
		"plans.NAME.burst":       {least: number(0), most: number(1e6)},
	}
}

func limitRules() map[string]rule {
	all := map[string]rule{
		"limits.in_flight":               {least: number(0), most: number(1e6)},
		"limits.max_body":                {aboveZero: true},
		"limits.max_header":              {aboveZero: true},
		"limits.max_header_lines":        {least: number(1)},
		"limits.header_timeout":          {aboveZero: true},
		"limits.idle_timeout":            {aboveZero: true},
		"limits.connections.total":       {least: number(0)},
		"limits.connections.per_address": {least: number(0)},
		"limits.http2.max_streams":       {least: number(1), most: number(32767)},
	}
	for _, name := range []string{"key", "management", "failed_auth"} {
		all["limits."+name+".rate"] = rule{least: number(0), most: number(1e6)}
		all["limits."+name+".burst"] = rule{least: number(0), most: number(1e6)}
	}
	return all
}

func dashboardRules() map[string]rule {
	const url = `^(?:` + httpScheme + `[^/?#@]+/?)?$`
	p := "dashboard.providers[]"
	return map[string]rule{
		"dashboard.host":              {words: "host name", pattern: "^$|" + hostName.String()},
		"dashboard.api_url":           {words: "URL", pattern: url},
		"dashboard.url":               {words: "URL", pattern: "^$|^" + trustedScheme},
		"dashboard.brand.accent":      {words: "colour", pattern: "^$|" + hexColour.String()},
		"dashboard.brand.docs":        {words: "URL", pattern: `^$|^` + httpScheme},
		"dashboard.session.idle":      {aboveZero: true},
		"dashboard.session.absolute":  {aboveZero: true},
		p:                             {some: []string{"account", "account_claim", "account_by_domain"}},
		p + ".name":                   {required: true, pattern: providerName.String()},
		p + ".label":                  {required: true, pattern: `\S`},
		p + ".issuer":                 {required: true, words: "URL", pattern: "^" + trustedScheme},
		p + ".client_id":              {required: true, nonEmpty: true},
		p + ".scopes[]":               {pattern: `^[^ "\\]+$`},
		p + ".account":                {words: "id of an account", pattern: "^$|" + idPattern},
		p + ".account_claim":          {words: "name of a claim"},
		p + ".account_by_domain":      {words: "mapping from domains to ids of accounts", names: hostName.String()},
		p + ".account_by_domain.NAME": {pattern: idPattern},
	}
}

func telemetryRules() map[string]rule {
	return map[string]rule{
		"log.level":            {oneOf: LogLevels()},
		"log.modules":          {words: "mapping from modules to levels", namesOf: LogModules()},
		"log.modules.NAME":     {oneOf: LogLevels()},
		"log.sample":           {least: number(0), most: number(1)},
		"log.buffer":           {words: "size, 64KiB to 1GiB", aboveZero: true},
		"tracing.endpoint":     {words: "URL", pattern: `^(?:` + httpScheme + `[^/?@]+)?$`},
		"tracing.sample":       {least: number(0), most: number(1)},
		"tracing.timeout":      {aboveZero: true},
		"tracing.headers":      {words: "mapping from names of headers to texts", names: `^[A-Za-z0-9._-]+$`},
		"tracing.headers.NAME": {pattern: `^[ -~]*$`},
	}
}

func number(n float64) *float64 { return &n }

// bounds are those of a number in plain words.
func (r rule) bounds() string {
	text := func(n float64) string { return strconv.FormatFloat(n, 'f', -1, 64) }
	switch {
	case r.least != nil && r.most != nil:
		return fmt.Sprintf(", %s to %s", text(*r.least), text(*r.most))
	case r.aboveZero:
		return " above 0"
	case r.least != nil:
		return fmt.Sprintf(", %s or more", text(*r.least))
	}
	return ""
}
