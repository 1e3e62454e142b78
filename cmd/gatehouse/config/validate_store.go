package config

import (
	"slices"

	"gatehouse/keystore"
)

func (v *validator) store() {
	p, store := path{"store"}, v.config.Store
	switch {
	case store.Redis == nil && store.Embedded == nil:
		v.refuse(p, "does not say where keys are kept", "give it redis or embedded")
	case store.Redis != nil && store.Embedded != nil:
		v.refuse(p.key("embedded"), "is there beside redis", "keep one of them")
	}
	if store.Redis != nil {
		v.redis(p.key("redis"), store.Redis)
	}
	if store.Embedded != nil && store.Embedded.File == "" {
		v.refuse(p.key("embedded").key("file"), "names no file", "write a path such as gatehouse.db.jsonl")
	}
	v.aboveZero(p.key("timeout"), int64(store.Timeout), "write a duration such as 250ms")
	v.choice(p.key("lookup"), string(store.Lookup), store.Lookup.choices()...)
	v.cache(p.key("cache"), store)
	v.durability(p.key("durability"), store)
}

// durability: an embedded store has each change on the disk, and no replicas.
func (v *validator) durability(p path, store Store) {
	const most = 10
	replicas := p.key("replicas")
	switch n := store.Durability.Replicas; {
	case n < 0 || n > most:
		v.refuse(replicas, v.shown(replicas)+" is no number of replicas", "write 0 to 10")
	case n > 0 && store.Redis == nil:
		v.refuse(replicas, "is there with an embedded store, which has no replicas", "write 0, or keep keys in redis")
	}
	v.aboveZero(p.key("timeout"), int64(store.Durability.Timeout), "write a duration such as 1s")
}

// cache: the entries bound what is remembered in strict lookups too.
func (v *validator) cache(p path, store Store) {
	const most = 10_000_000
	if store.Lookup == LookupCached && store.Cache.TTL == 0 {
		v.refuse(p.key("ttl"), "is 0, so that lookup: cached would cache nothing", "write a duration such as 5s, or lookup: strict")
	}
	if store.Cache.Entries < 1 || store.Cache.Entries > most {
		v.refuse(p.key("entries"), v.shown(p.key("entries"))+" is no number of entries", "write 1 to 10000000")
	}
}

func (v *validator) redis(p path, r *Redis) {
	if r.URL != "" {
		v.redisURL(p, r)
	}
	if len(r.Addrs) == 0 {
		v.refuse(p.key("addrs"), "names no address", "write at least one HOST:PORT")
	}
	for i, addr := range r.Addrs {
		entry := p.key("addrs").index(i)
		host, port, ok := splitHostPort(addr)
		if !ok || host == "" || port == 0 {
			v.refuse(entry, v.shown(entry)+" is no address of a server", "write HOST:PORT, as in 127.0.0.1:6379")
		}
		if slices.Contains(r.Addrs[:i], addr) {
			v.refuse(entry, v.shown(entry)+" is there twice", "remove one of them: several addresses mean several servers")
		}
	}
	if r.MasterName != "" && !v.given(p.key("addrs")) {
		v.refuse(p.key("master_name"), "is there without addrs", "name the addresses of the Sentinels")
	}
	if r.DB < 0 {
		v.refuse(p.key("db"), v.shown(p.key("db"))+" is no number of a database", "write 0 or more")
	}
	if r.DB > 0 && len(r.Addrs) > 1 && r.MasterName == "" {
		v.refuse(p.key("db"), v.shown(p.key("db"))+" cannot be used: several addrs are a Cluster, which has only database 0", "write 0, or a master_name if the addrs are Sentinels")
	}
	if r.Username != "" && r.Password == "" {
		v.refuse(p.key("username"), "is there without a password, and would not be sent", "give the password too, or remove it")
	}
	v.sentinels(p, r)
	if !isMadeOf(r.Prefix, "-._:/") {
		v.refuse(p.key("prefix"), v.shown(p.key("prefix"))+" is no prefix of keys", "write letters, digits, -, ., _, : and /, as in gatehouse:")
	}
	v.redisTLS(p.key("tls"), r.TLS)
}

// redisURL: what a URL says cannot be said beside it. It may hold a password, and
// is not shown.
func (v *validator) redisURL(p path, r *Redis) {
	parsed, err := keystore.ParseRedisURL(string(r.URL))
	if err != nil { // which could quote a password that stands where it must not
		v.refuse(p.key("url"), "is no URL of a Redis", "write redis://[USER:PASSWORD@]HOST[:PORT][/DATABASE], or rediss:// for TLS; further servers of a Cluster as ?addr=HOST:PORT")
	}
	for name, empty := range map[string]bool{
		"addrs": false, "master_name": r.MasterName == "", "username": r.Username == "", "password": r.Password == "",
		"sentinel_username": r.SentinelUsername == "", "sentinel_password": r.SentinelPassword == "", "db": r.DB == 0,
	} {
		if v.given(p.key(name)) && !empty {
			v.refuse(p.key(name), "is there beside url", "keep one of them")
		}
	}
	if err == nil && r.TLS.Enabled && parsed.TLS == nil {
		v.refuse(p.key("tls"), "is enabled, and the url says redis://", "write rediss:// in the url")
	}
}

// sentinels: what is for the Sentinels is not sent to anybody else.
func (v *validator) sentinels(p path, r *Redis) {
	for _, setting := range []struct{ name, value string }{{"sentinel_username", r.SentinelUsername}, {"sentinel_password", string(r.SentinelPassword)}} {
		if setting.value != "" && r.MasterName == "" {
			v.refuse(p.key(setting.name), "is there without a master_name, and would not be sent", "name the master that the Sentinels watch, or remove it")
		}
	}
	if r.SentinelUsername != "" && r.SentinelPassword == "" {
		v.refuse(p.key("sentinel_username"), "is there without a sentinel_password, and would not be sent", "give the password too, or remove it")
	}
}

func (v *validator) redisTLS(p path, t RedisTLS) {
	v.certificate(p, t.CertFile, t.KeyFile)
	if !t.Enabled && t != (RedisTLS{}) {
		v.refuse(p, "has settings, but is not enabled", "write enabled: true, or remove them")
	}
}
