package keyapi

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"

	"github.com/goccy/go-yaml"
)

const (
	openapiPath = "/v4/openapi.json"
	docsPath    = "/docs"
	stylePath   = "/docs/style.css"
)

//go:embed openapi.yaml docs
var documentFiles embed.FS

// OpenAPI returns the description of the API (OpenAPI 3.1) as it is written.
func OpenAPI() ([]byte, error) { return documentFiles.ReadFile("openapi.yaml") }

// Documents serves what describes the API: openapi.yaml as JSON, and a page that
// a person can read. They hold nothing of any customer, and need no key.
type Documents struct{ files map[string]file }

type file struct {
	mediaType, etag string
	content         []byte
}

// NewDocuments makes the documents. It fails only when the description that
// was built in is broken.
func NewDocuments() (*Documents, error) {
	source, err := OpenAPI()
	if err != nil {
		return nil, fmt.Errorf("new documents: %w", err)
	}
	description, err := yaml.YAMLToJSON(source)
	if err != nil {
		return nil, fmt.Errorf("new documents: %w", err)
	}
	page, err := docsPage(description)
	if err != nil {
		return nil, fmt.Errorf("new documents: %w", err)
	}
	style, err := documentFiles.ReadFile("docs/style.css")
	if err != nil {
		return nil, fmt.Errorf("new documents: %w", err)
	}
	return &Documents{files: map[string]file{
		openapiPath: newFile("application/json", description),
		docsPath:    newFile("text/html; charset=utf-8", page),
		stylePath:   newFile("text/css; charset=utf-8", style),
	}}, nil
}

func newFile(mediaType string, content []byte) file {
	sum := sha256.Sum256(content)
	return file{mediaType: mediaType, content: content, etag: `"` + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`}
}

// DocumentTargets are the request targets of the documents, byte for byte.
func DocumentTargets() []string { return []string{openapiPath, docsPath, stylePath} }

// DocumentPattern names the document that such a request is for.
func DocumentPattern(r *http.Request) string { return http.MethodGet + " " + r.RequestURI }

// ServeHTTP answers GET and HEAD for one of DocumentTargets.
func (d *Documents) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f, is := d.files[r.RequestURI]
	if !is {
		http.NotFound(w, r) // it was not asked for by one of the targets
		return
	}
	f.serve(w, r)
}

func (f file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Type", f.mediaType)
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-cache")
	h.Set("ETag", f.etag)
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	_, _ = w.Write(f.content) // a client that has gone needs no answer
}

// docsPage renders the description for people.
func docsPage(description []byte) ([]byte, error) {
	view, err := readDescription(description)
	if err != nil {
		return nil, err
	}
	page, err := template.New("page.html").Funcs(template.FuncMap{"anchor": anchor}).ParseFS(documentFiles, "docs/page.html")
	if err != nil {
		return nil, fmt.Errorf("docs page: %w", err)
	}
	var out bytes.Buffer
	if err := page.Execute(&out, view); err != nil {
		return nil, fmt.Errorf("docs page: %w", err)
	}
	if out.Len() == 0 {
		return nil, errors.New("docs page: it is empty")
	}
	return out.Bytes(), nil
}

// anchor names a heading for links.
func anchor(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(s))
}
