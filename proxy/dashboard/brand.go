package dashboard

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/url"
	"regexp"
	"strconv"
)

// Brand is how the pages show whose they are. Its zero value is Gatehouse's own.
type Brand struct {
	// Name is the product's, "" for Gatehouse.
	Name string
	// Logo is an SVG or PNG image, nil for none.
	Logo []byte
	// Accent is the colour of buttons and links, as #rrggbb; "" for the default.
	Accent string
	// Docs is an http or https link to the documentation of the product's API;
	// "" for none.
	Docs string
}

// MaxBrandName bounds the name of the product, in bytes.
const MaxBrandName = 60

const (
	defaultName   = "Gatehouse"
	defaultAccent = "#3451d1"
	maxLogo       = 64 << 10 // bytes
	// minContrast is what WCAG 2.2 AA asks of text (1.4.3).
	minContrast = 4.5
)

// brand is a Brand that was checked, with its colours worked out.
type brand struct {
	Name, Docs string
	LogoType   string // media type; "" for no logo
	logo       []byte
	style      []byte // the colours, as CSS
}

var errLogo = errors.New("the logo is no SVG and no PNG image")

func newBrand(o Brand) (brand, error) {
	b := brand{Name: o.Name, Docs: o.Docs, logo: o.Logo}
	if b.Name == "" {
		b.Name = defaultName
	}
	if len(b.Name) > MaxBrandName {
		return brand{}, fmt.Errorf("the name of the product is longer than %d bytes", MaxBrandName)
	}
	if o.Docs != "" {
		u, err := url.Parse(o.Docs)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return brand{}, errors.New("the link to the documentation is no http or https URL")
		}
	}
	var err error
	if b.LogoType, err = logoType(o.Logo); err != nil {
		return brand{}, err
	}
	b.style, err = accentStyle(o.Accent)
	return b, err
}

// CheckLogo returns an error for what is no logo.
func CheckLogo(logo []byte) error {
	_, err := logoType(logo)
	return err
}

// logoType is the media type of the logo, "" for none.
func logoType(logo []byte) (string, error) {
	switch {
	case len(logo) == 0:
		return "", nil
	case len(logo) > maxLogo:
		return "", fmt.Errorf("the logo is larger than %d bytes", maxLogo)
	case bytes.HasPrefix(logo, []byte("\x89PNG\r\n\x1a\n")):
		return "image/png", nil
	case bytes.Contains(logo[:min(len(logo), 1024)], []byte("<svg")):
		return "image/svg+xml", nil
	}
	return "", errLogo
}

// colour is one of sRGB, each part from 0 to 1.
type colour struct{ r, g, b float64 }

var hexColour = regexp.MustCompile(`^#[0-9a-fA-F]{6}$`)

func parseColour(s string) (colour, error) {
	if !hexColour.MatchString(s) {
		return colour{}, fmt.Errorf("the accent colour %q is not of the form #rrggbb", s)
	}
	n, err := strconv.ParseUint(s[1:], 16, 32)
	if err != nil {
		return colour{}, fmt.Errorf("the accent colour %q: %w", s, err)
	}
	part := func(shift uint) float64 { return float64(n>>shift&0xff) / 255 }
	return colour{part(16), part(8), part(0)}, nil
}

func (c colour) String() string {
	part := func(f float64) int { return int(math.Round(f * 255)) }
	return fmt.Sprintf("#%02x%02x%02x", part(c.r), part(c.g), part(c.b))
}

// mix moves the colour a share of the way to another one.
func (c colour) mix(other colour, share float64) colour {
	part := func(a, b float64) float64 { return a + (b-a)*share }
	return colour{part(c.r, other.r), part(c.g, other.g), part(c.b, other.b)}
}

// luminance is the relative luminance of WCAG 2.2.
func (c colour) luminance() float64 {
	part := func(f float64) float64 {
		if f <= 0.04045 {
			return f / 12.92
		}
		return math.Pow((f+0.055)/1.055, 2.4)
	}
	return 0.2126*part(c.r) + 0.7152*part(c.g) + 0.0722*part(c.b)
}

// contrast is the contrast ratio of WCAG 2.2, from 1 to 21.
func contrast(a, b colour) float64 {
	x, y := a.luminance(), b.luminance()
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// until moves the colour towards another one as far as it must to be readable
// on each of the grounds.
func (c colour) until(toward colour, grounds ...colour) colour {
	for share := 0.0; share < 1; share += 0.02 {
		tried := c.mix(toward, share)
		readable := true
		for _, ground := range grounds {
			readable = readable && contrast(tried, ground) >= minContrast+0.1
		}
		if readable {
			return tried
		}
	}
	return toward
}

// accentStyle makes the colours of both schemes: whichever accent an operator
// chooses, text in it and on it can be read.
func accentStyle(accent string) ([]byte, error) {
	if accent == "" {
		accent = defaultAccent
	}
	chosen, err := parseColour(accent)
	if err != nil {
		return nil, err
	}
	black, white := colour{}, colour{1, 1, 1}
	const rule = "%s{--accent:%s;--on-accent:%s;--accent-text:%s;--accent-soft:%s}\n"
	scheme := func(selector string, toward colour, soft colour, grounds ...colour) string {
		text := chosen.until(toward, append(grounds, soft)...)
		on := white
		if contrast(white, chosen) < contrast(black, chosen) {
			on = black
		}
		fill := chosen
		if contrast(on, fill) < minContrast {
			fill = fill.until(colour{1 - on.r, 1 - on.g, 1 - on.b}, on)
		}
		return fmt.Sprintf(rule, selector, fill, on, text, soft)
	}
	// The grounds are those of css/base.css.
	light := scheme(":root", black, white.mix(chosen, 0.09), white, colour{.965, .969, .976})
	night := colour{.067, .078, .106}
	dark := scheme(":root", white, night.mix(chosen, 0.22), night, colour{.106, .122, .161})
	return []byte(light + "@media (prefers-color-scheme: dark){" + dark + "}\n"), nil
}
