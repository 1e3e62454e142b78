package proxy

import (
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// QueryRule takes a route's permission from one query parameter. Its zero
// value decides nothing.
type QueryRule struct {
	Parameter   string
	Permissions map[string]policy.Permission // by the value of the parameter
}

// maxQueryParts is what PHP, qs and others read of a query.
const maxQueryParts = 1000

// Needs returns the permission that the query decides, or an ambiguous_query
// problem where two readers could see another value of the deciding
// parameter: it must be there once, spelt as configured, unescaped, with a
// known value, in a query that every parser splits alike. Nothing else in the
// query may pass for it in another letter case or as an array.
func (q QueryRule) Needs(rawQuery string) (policy.Permission, error) {
	var needs policy.Permission
	if strings.ContainsAny(rawQuery, ";#") {
		return "", q.ambiguous("its parts are not clearly separated")
	}
	if strings.Count(rawQuery, "&") >= maxQueryParts {
		return "", q.ambiguous("it has more parameters than every server reads")
	}
	for pair := range strings.SplitSeq(rawQuery, "&") {
		rawName, rawValue, _ := strings.Cut(pair, "=")
		name, err := url.QueryUnescape(rawName)
		if err != nil {
			return "", q.ambiguous("it has a broken escape")
		}
		if _, err := url.QueryUnescape(rawValue); err != nil {
			return "", q.ambiguous("it has a broken escape")
		}
		if !q.couldBeRead(name) {
			continue
		}
		permission, known := q.Permissions[rawValue]
		switch {
		case rawName != q.Parameter:
			return "", q.ambiguous("the parameter is spelt in another way")
		case needs != "":
			return "", q.ambiguous("the parameter is there more than once")
		case !known || permission == "":
			return "", q.ambiguous("the parameter has an unknown value")
		}
		needs = permission
	}
	if needs == "" {
		return "", q.ambiguous("the parameter is missing")
	}
	return needs, nil
}

// couldBeRead reports whether some parser reads a parameter of this name as
// the deciding one: in any letter case (also Unicode's), with spaces around it,
// with a NUL behind it, with brackets around or behind it, or with a dot, space
// or opening bracket for "_".
func (q QueryRule) couldBeRead(name string) bool {
	name, _, _ = strings.Cut(name, "\x00")
	name = strings.TrimLeftFunc(name, unicode.IsSpace)
	if sameLetters(underscored(name), underscored(q.Parameter)) {
		return true
	}
	name = strings.TrimLeft(name, "[]")
	if i := strings.IndexAny(name, "[]"); i >= 0 {
		name = name[:i]
	}
	name = strings.TrimSpace(name)
	return sameLetters(name, q.Parameter) || sameLetters(underscored(name), underscored(q.Parameter))
}

func underscored(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '.' || r == ' ' || r == '[' {
			return '_'
		}
		return r
	}, s)
}

// sameLetters: Unicode folding knows nothing of Turkish, lower and upper case do.
func sameLetters(a, b string) bool {
	return strings.EqualFold(a, b) || strings.EqualFold(strings.ToLower(a), strings.ToLower(b)) ||
		strings.EqualFold(strings.ToUpper(a), strings.ToUpper(b))
}

func (q QueryRule) ambiguous(fault string) error {
	return problem.New(problem.AmbiguousQuery, "The query parameter "+q.Parameter+" decides what this request needs, and "+fault+".")
}

// bodyMayDecide refuses a body where the query decides: many servers read
// parameters from forms, some also from JSON or from bodies of no stated type,
// and let them win over the query.
func (q QueryRule) bodyMayDecide(r *http.Request) error {
	if r.ContentLength != 0 {
		return q.ambiguous("a body could name it too")
	}
	return nil
}
