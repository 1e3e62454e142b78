package dashboard

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

//go:embed templates css js
var files embed.FS

// pages are the templates by name: each the layout with one page in it.
type pages map[string]*template.Template

// parsePages reads the templates: each page with the parts that all may use.
func (d *Dashboard) parsePages() (pages, error) {
	list, err := fs.Glob(files, "templates/*.html")
	if err != nil {
		return nil, err
	}
	made := pages{}
	for _, file := range list {
		t, err := template.New(path.Base(file)).Option("missingkey=error").Funcs(d.functions()).ParseFS(files, "templates/parts/*.html", file)
		if err != nil {
			return nil, fmt.Errorf("page %s: %w", file, err)
		}
		made[strings.TrimSuffix(path.Base(file), ".html")] = t
	}
	return made, nil
}

// view is what a template is given.
type view struct {
	Title string
	Brand brand
	// Current is the path of the section that the page is in.
	Current string
	// Scripts are the files of js/ that the page needs beside those of all pages.
	Scripts []string
	// User and Account are of who is signed in; nil on open pages.
	User    *keystore.User
	Account *keystore.Account
	May     func(p policy.Permission) bool
	// Notice says what the last form did.
	Notice  string
	Now     time.Time
	Content any
}

// page is what a handler shows: the template's name, and what goes into it.
type page struct {
	name, title, current string
	scripts              []string
	content              any
	status               int // 0: 200
}

// show answers with the page.
func (d *Dashboard) show(v *visit, p page) error {
	data := view{
		Title: p.title, Brand: d.brand, Current: p.current, Scripts: p.scripts, Notice: notices()[v.r.URL.Query().Get("notice")],
		Now: d.o.Now(), Content: p.content, May: func(policy.Permission) bool { return false },
	}
	if v.session != nil {
		data.User, data.Account, data.May = &v.session.User, &v.account, v.caller.Permissions().Has
	}
	t, ok := d.pages[p.name]
	if !ok {
		return fmt.Errorf("show page: there is no template %q", p.name)
	}
	var out bytes.Buffer
	if err := t.ExecuteTemplate(&out, "layout", data); err != nil {
		return fmt.Errorf("show page %s: %w", p.name, err)
	}
	if p.status == 0 {
		p.status = http.StatusOK
	}
	v.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	v.w.Header().Set("Content-Length", strconv.Itoa(out.Len()))
	v.w.WriteHeader(p.status)
	if v.r.Method != http.MethodHead {
		_, _ = v.w.Write(out.Bytes()) // a browser that has gone needs no answer
	}
	return nil
}

// notices are what a page can be asked to say, by the name in its address:
// nobody can put words of their own there.
func notices() map[string]string {
	return map[string]string{
		"key_updated":                 "The key was changed.",
		"key_unchanged":               "Nothing was changed: the form was as it had been shown.",
		"key_disabled":                "The key is disabled. Its token is refused until you enable it again.",
		"key_enabled":                 "The key is enabled.",
		"key_revoked":                 "The key is revoked. Its token does not work any more.",
		"token_searched":              "What you searched for looks like a token, so it was not used. Search for its first or last four characters instead, and keep the token itself to where it is needed.",
		"signed_out":                  "You are signed out.",
		"signed_out_everywhere":       "You are signed out everywhere.",
		"session_ended":               "That session has ended.",
		"password_changed_signed_out": "Your password is changed, and you are signed out everywhere. Sign in with the new password.",
		"totp_removed_signed_out":     "The authenticator is removed, and you are signed out everywhere. Sign in with your password.",
		"password_changed":            "Your password is changed, and you are signed out everywhere else.",
		"totp_removed":                "The authenticator is removed, and you are signed out everywhere else.",
	}
}

// fail answers with a page that says what is wrong.
func (d *Dashboard) fail(v *visit, err error) error {
	if v.r.Context().Err() != nil {
		return err
	}
	p := problem.From(err)
	v.refuse(p)
	if p.RetryAfter > 0 {
		v.w.Header().Set("Retry-After", strconv.Itoa(int((p.RetryAfter+time.Second-1)/time.Second)))
	}
	if p.Allow != "" {
		v.w.Header().Set("Allow", p.Allow)
	}
	return d.show(v, page{
		name: "error", title: http.StatusText(p.Code.Status()), status: p.Code.Status(),
		content: errorPage{Code: string(p.Code), Detail: p.Detail, RequestID: v.from.RequestID},
	})
}

type errorPage struct{ Code, Detail, RequestID string }
