package dashboard

import (
	"html/template"
	"strconv"
	"time"
	"unicode/utf8"

	"gatehouse/keystore"
	"gatehouse/policy"
)

// functions are what templates may call. Times are shown in UTC; js/app.js
// shows them in the reader's time zone.
func (d *Dashboard) functions() template.FuncMap {
	return template.FuncMap{
		"asset":   d.assets.path,
		"ago":     func(t time.Time) string { return ago(t, d.o.Now()) },
		"may":     func(v view, p string) bool { return v.May(policy.Permission(p)) },
		"initial": initial,
		"machine": func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
		"exact":   exact,
		"day":     func(t time.Time) string { return t.UTC().Format("2 Jan 2006") },
		"stamp":   func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05 UTC") },
		"number":  number,
	}
}

func exact(t time.Time) string { return t.UTC().Format("2 January 2006, 15:04 UTC") }

// number spells a number with its thousands set apart: 12,345.
func number(n int64) string {
	digits := strconv.FormatInt(n, 10)
	for i := len(digits) - 3; i > 0 && digits[i-1] != '-'; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// initial is the first character of what the user is called.
func initial(u *keystore.User) string {
	name := u.Name
	if name == "" {
		name = string(u.Email)
	}
	first, _ := utf8.DecodeRuneInString(name)
	return string(first)
}
