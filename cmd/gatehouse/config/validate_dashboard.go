package config

import (
	"net/url"
	"os"
	"regexp"
	"strings"

	"gatehouse/proxy/dashboard"
)

func (v *validator) dashboard(p path, d Dashboard) {
	v.session(p.key("session"), d.Session)
	if d.Host != "" && !isHostName(d.Host) {
		v.refuse(p.key("host"), v.shown(p.key("host"))+" is not a host name", "write it in lower case and without a port, such as dashboard.example.com")
	}
	v.apiURL(p.key("api_url"), d)
	v.brand(p.key("brand"), d.Brand)
	v.providers(p, d)
	if !d.Enabled || d.Host == "" {
		return
	}
	for i, route := range v.config.Routes {
		_, pattern, found := strings.Cut(route.Match, " ")
		if !found {
			pattern = route.Match
		}
		if host, _, _ := strings.Cut(pattern, "/"); host == d.Host {
			v.refuse(path{"routes"}.index(i).key("match"), "is on the host of the dashboard, where nothing else is served", "choose another host for one of them")
		}
	}
}

// apiURL: on a host of its own the dashboard cannot know where the API is.
func (v *validator) apiURL(p path, d Dashboard) {
	const mend = "write the URL that customers call, such as https://api.example.com"
	if d.APIURL == "" {
		if d.Enabled && d.Host != "" {
			v.refuse(p, "is missing, and the API is not served on the host of the dashboard", mend)
		}
		return
	}
	if !isOrigin(d.APIURL) {
		v.refuse(p, v.shown(p)+" is not the URL of an API", mend)
	}
}

// isOrigin: a scheme and a host, and nothing else.
func isOrigin(s string) bool {
	u, err := url.Parse(strings.TrimSuffix(s, "/"))
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && *u == url.URL{Scheme: u.Scheme, Host: u.Host}
}

// brand asks the dashboard itself whether it can be shown.
func (v *validator) brand(p path, b Brand) {
	if len(b.Name) > dashboard.MaxBrandName {
		v.refuse(p.key("name"), "is too long", "write at most 60 bytes")
	}
	if b.Accent != "" && !hexColour.MatchString(b.Accent) {
		v.refuse(p.key("accent"), v.shown(p.key("accent"))+" is not a colour", "write one such as \"#3451d1\"")
	}
	if b.Docs != "" {
		u, err := url.Parse(b.Docs)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			v.refuse(p.key("docs"), v.shown(p.key("docs"))+" is not a link", "write one such as https://docs.example.com/")
		}
	}
	if b.LogoFile == "" {
		return
	}
	if _, err := b.Logo(); err != nil {
		v.refuse(p.key("logo_file"), "cannot be used", "name an SVG or PNG file of at most 64 KiB")
	}
}

// Logo reads the file of the logo; nil where there is none.
func (b Brand) Logo() ([]byte, error) {
	if b.LogoFile == "" {
		return nil, nil
	}
	logo, err := os.ReadFile(b.LogoFile)
	if err != nil {
		return nil, err
	}
	return logo, dashboard.CheckLogo(logo)
}

func (v *validator) session(p path, s Session) {
	v.aboveZero(p.key("idle"), int64(s.Idle), "write a duration such as 30m")
	v.aboveZero(p.key("absolute"), int64(s.Absolute), "write a duration such as 12h")
	if s.Absolute > 0 && s.Idle > s.Absolute {
		v.refuse(p.key("idle"), v.shown(p.key("idle"))+" is longer than absolute, which bounds it", "write a shorter one")
	}
}

var (
	hexColour = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)
	hostName  = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$`)
)

// isHostName: as DNS sees it, in its one spelling.
func isHostName(s string) bool { return len(s) <= 253 && hostName.MatchString(s) }
