package keystore

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const redisPort = "6379"

// ParseRedisURL reads how to reach Redis from a URL:
//
//	redis://[user:password@]host[:port][/db][?addr=host:port&…]
//
// With rediss instead of redis it is over TLS, and each server's certificate
// must be for the host by which it is reached. More hosts, given as addr, make
// it a Cluster, whose database is 0. The user, the password and the number of
// the database may also be given as the parameters user, password and db, but
// not in both places. Anything else is an error. Errors do not contain the
// password. A Sentinel cannot be given by a URL.
func ParseRedisURL(s string) (Redis, error) {
	u, err := url.Parse(s)
	if err != nil {
		return Redis{}, errors.New("not a valid URL") // the cause would quote it
	}
	var r Redis
	switch u.Scheme {
	case "redis":
	case "rediss":
		r.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	default:
		return Redis{}, errors.New("the URL must begin with redis:// or rediss://")
	}
	if u.Opaque != "" || u.Fragment != "" || strings.Contains(s, "#") {
		return Redis{}, errors.New("want redis://user:password@host:port/db, without a fragment; percent-encode '#', '?' and '/' of a password")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Redis{}, errors.New("the query of the URL is not valid")
	}
	for _, read := range []func(*Redis, *url.URL, url.Values) error{readAddrs, readCredentials, readDB, rejectRest} {
		if err := read(&r, u, query); err != nil {
			return Redis{}, err
		}
	}
	return r, nil
}

func readAddrs(r *Redis, u *url.URL, query url.Values) error {
	for _, host := range append([]string{u.Host}, query["addr"]...) {
		addr, err := redisAddr(host)
		if err != nil {
			return err
		}
		if slices.Contains(r.Addrs, addr) {
			return fmt.Errorf("the address %s is given twice", addr)
		}
		r.Addrs = append(r.Addrs, addr)
	}
	query.Del("addr")
	return nil
}

// redisAddr returns host:port.
func redisAddr(s string) (string, error) {
	host, port, err := net.SplitHostPort(s)
	if err != nil { // it may be a host without a port
		host, port = s, redisPort
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			host = s[1 : len(s)-1]
		} else if strings.Contains(s, ":") {
			return "", fmt.Errorf("%q is not host:port", s)
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
		return "", fmt.Errorf("%q is not a port", port)
	}
	if _, err := netip.ParseAddr(host); err != nil && !isHostName(host) {
		return "", fmt.Errorf("%q is not a host", host)
	}
	return net.JoinHostPort(host, port), nil
}

// isHostName: letters, digits, '-', '.' and '_', which names of containers have.
func isHostName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return s != "" && s[0] != '-' && s[0] != '.' && len(s) <= 253
}

func readCredentials(r *Redis, u *url.URL, query url.Values) error {
	password, has := u.User.Password()
	if u.User != nil && !has {
		return errors.New("the URL has a user and no password; for a password alone write redis://:password@host")
	}
	r.Username, r.Password = u.User.Username(), password
	for name, field := range map[string]*string{"user": &r.Username, "password": &r.Password} {
		value, given, err := one(query, name)
		if err != nil {
			return err
		}
		if given && u.User != nil {
			return fmt.Errorf("the parameter %s is given beside a user and password before the host", name)
		}
		if given {
			*field = value
		}
	}
	if r.Username != "" && r.Password == "" {
		return errors.New("a user needs a password")
	}
	return nil
}

func readDB(r *Redis, u *url.URL, query url.Values) error {
	value, given, err := one(query, "db")
	if err != nil {
		return err
	}
	if path := strings.TrimPrefix(u.EscapedPath(), "/"); path != "" {
		if given {
			return errors.New("the database is given both in the path and as a parameter")
		}
		value, given = path, true
	}
	if !given {
		return nil
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || strconv.FormatUint(n, 10) != value {
		return errors.New("the database must be a number, as in redis://host:6379/0")
	}
	if n > 0 && len(r.Addrs) > 1 {
		return errors.New("a Redis Cluster has no database but 0")
	}
	r.DB = int(n)
	return nil
}

func rejectRest(_ *Redis, _ *url.URL, query url.Values) error {
	for name := range query {
		return fmt.Errorf("unknown parameter %q; there are addr, db, user and password", name)
	}
	return nil
}

// one takes a parameter out of the query that may be given once.
func one(query url.Values, name string) (value string, given bool, err error) {
	values := query[name]
	query.Del(name)
	if len(values) > 1 {
		return "", false, fmt.Errorf("the parameter %s is given twice", name)
	}
	if len(values) == 0 {
		return "", false, nil
	}
	if values[0] == "" {
		return "", false, fmt.Errorf("the parameter %s is empty", name)
	}
	return values[0], true, nil
}
