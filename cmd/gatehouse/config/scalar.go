package config

import (
	"errors"
	"math"
	"net/netip"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"

	"gatehouse/policy"
)

// Secret is a text that prints as "(redacted)". string(s) is the text itself.
type Secret string

// String does not return the secret.
func (Secret) String() string { return "(redacted)" }

// GoString does not return the secret.
func (Secret) GoString() string { return "(redacted)" }

// MarshalText does not return the secret, so that no encoder writes it.
func (Secret) MarshalText() ([]byte, error) { return []byte("(redacted)"), nil }

// Bytes is a size.
type Bytes int64

// isScalar reports whether a setting of the type is a single value.
func isScalar(t reflect.Type) bool {
	if t == reflect.TypeFor[netip.Prefix]() || t == reflect.TypeFor[*url.URL]() {
		return true
	}
	k := t.Kind()
	return k == reflect.String || k == reflect.Bool || k == reflect.Int || k == reflect.Int64 || k == reflect.Float64
}

// scalar decodes a single value, after what it takes from the environment was
// put in.
func (d *decoder) scalar(p path, node ast.Node, into reflect.Value) {
	l, ok := literalOf(node)
	if !ok {
		d.unreadable(p, "is "+describe(node)+" where a single value is needed", "write a single value, in quotes if it has a colon")
		return
	}
	if fault, mend := styleFault(l, into.Type()); fault != "" {
		d.unreadable(p, fault, mend)
		return
	}
	_, isSecret := into.Interface().(Secret)
	e := expand(l.text, d.lookupEnv)
	if e.malformed {
		d.unreadable(p, "has a ${ that begins neither ${NAME} nor ${NAME:-default}", "correct it, or write $$ for a dollar sign")
	}
	for _, name := range e.unset {
		if isSecret && l.text != "${"+name+"}" {
			name = "a variable"
		}
		d.unreadable(p, name+" is not set in the environment", "set it, or write ${NAME:-default}")
	}
	if e.malformed || len(e.unset) > 0 {
		return
	}
	l.replaced = e.replaced
	if !isSecret {
		d.literals[p.String()] = l
	}
	if fault, mend := read(into.Addr().Interface(), e.text); fault != "" {
		d.unreadable(p, l.String()+" "+fault, mend)
	}
}

// styleFault refuses a number where text is needed, and text where a number
// is. What has a ${ is text as it is written, whatever it will be.
func styleFault(l literal, t reflect.Type) (fault, mend string) {
	isPlain := t.Kind() == reflect.Bool || t.Kind() == reflect.Int || t.Kind() == reflect.Float64
	switch {
	case t.Kind() == reflect.String && l.isNumber:
		return "is a number where text is needed", "put it in quotes"
	case t.Kind() == reflect.String && l.isBool:
		return "is true or false where text is needed", "put it in quotes"
	case isPlain && l.quoted && !strings.Contains(l.text, "${"):
		return "is text where a number, or true or false, is needed", "remove the quotes"
	}
	return "", ""
}

// read sets the target, a pointer to a scalar, to what the text says, or tells
// in words that follow the text why it says nothing.
func read(target any, text string) (fault, mend string) {
	var ok bool
	switch t := target.(type) {
	case *bool:
		*t, ok = text == "true", text == "true" || text == "false"
		return misfit(ok, "is not true or false", "write true or false")
	case *int:
		return readInt(t, text)
	case *float64:
		return readFloat(t, text)
	case *time.Duration:
		return readDuration(t, text)
	case *Bytes:
		return readBytes(t, text)
	case *netip.Prefix:
		return readPrefix(t, text)
	case **url.URL:
		u, err := url.Parse(text)
		*t = u
		return misfit(err == nil, "is not a URL", "write http://HOST:PORT, https://HOST:PORT or h2c://HOST:PORT")
	}
	reflect.ValueOf(target).Elem().SetString(text)
	return "", ""
}

func misfit(ok bool, fault, mend string) (string, string) {
	if ok {
		return "", ""
	}
	return fault, mend
}

// wholeNumber takes decimal digits alone: what 010 and 1_000 are, readers of
// YAML do not agree on.
func wholeNumber(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err == nil && strconv.Itoa(n) != text {
		err = strconv.ErrSyntax
	}
	return n, err
}

func decimalNumber(text string) (float64, error) {
	if strings.Trim(text, "0123456789.eE+-") != "" {
		return 0, strconv.ErrSyntax
	}
	return strconv.ParseFloat(text, 64)
}

func readInt(into *int, text string) (fault, mend string) {
	n, err := wholeNumber(text)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return "is too large a number", "write a smaller one"
	case err != nil:
		return "is not a whole number", "write a decimal number such as 20"
	}
	*into = n
	return "", ""
}

func readFloat(into *float64, text string) (fault, mend string) {
	n, err := decimalNumber(text)
	switch {
	case errors.Is(err, strconv.ErrRange):
		return "is too large a number", "write a smaller one"
	case err != nil:
		return "is not a number", "write a decimal number such as 0.5 or 20"
	}
	*into = n
	return "", ""
}

func readDuration(into *time.Duration, text string) (fault, mend string) {
	const example = "write it as 250ms, 30s or 5m"
	d, err := time.ParseDuration(text)
	_, notNumber := decimalNumber(text)
	switch {
	case err != nil && notNumber == nil:
		return "is a duration without a unit", example
	case err != nil:
		return "is not a duration", example
	case d < 0:
		return "is a negative duration", example
	}
	*into = d
	return "", ""
}

func readBytes(into *Bytes, text string) (fault, mend string) {
	digits := strings.TrimRight(text, "kKMGiB")
	unit := unitBytes(text[len(digits):])
	n, err := wholeNumber(digits)
	switch {
	case unit != 0 && (errors.Is(err, strconv.ErrRange) || int64(n) > math.MaxInt64/unit):
		return "is too large a size", "write a smaller one"
	case unit == 0 || err != nil || n < 0:
		return "is not a size", "write a whole number of bytes, or of KiB, MiB, GiB, kB, MB or GB, as in 10MiB"
	}
	*into = Bytes(int64(n) * unit)
	return "", ""
}

// unitBytes is the size of a unit in bytes; 0 when there is no such unit.
func unitBytes(unit string) int64 {
	switch unit {
	case "":
		return 1
	case "kB":
		return 1e3
	case "MB":
		return 1e6
	case "GB":
		return 1e9
	case "KiB":
		return 1 << 10
	case "MiB":
		return 1 << 20
	case "GiB":
		return 1 << 30
	}
	return 0
}

func readPrefix(into *netip.Prefix, text string) (fault, mend string) {
	prefix, err := policy.ParsePrefix(text)
	host, _, _ := strings.Cut(text, "/")
	if addr, hostErr := netip.ParseAddr(host); hostErr == nil && addr.Is4In6() {
		return "is an IPv4-mapped address", "write the IPv4 address or range that is meant"
	}
	if err != nil {
		return "is no address and no CIDR range", "write it as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1"
	}
	*into = prefix
	return "", ""
}
