package dashboard

import (
	"fmt"
	"html/template"
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

// initial is the first character of what the user is called.
func initial(u *keystore.User) string {
	name := u.Name
	if name == "" {
		name = string(u.Email)
	}
	first, _ := utf8.DecodeRuneInString(name)
	return string(first)
}

// number writes a whole number, from 0, with a comma before each three digits.
func number(n any) string {
	digits := fmt.Sprint(n)
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}
