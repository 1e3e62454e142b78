package dashboard

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
)

const assetsPath = Prefix + "/assets/"

// assets are the files that pages load. Each is at a path that names its
// content, and so can be kept for good.
type assets struct {
	byPath map[string]asset
	paths  map[string]string // by name
}

type asset struct {
	mediaType string
	content   []byte
}

// newAssets puts all style sheets into one, with the brand's colours in front.
func newAssets(b brand) (*assets, error) {
	a := &assets{byPath: map[string]asset{}, paths: map[string]string{}}
	sheets, err := fs.Glob(files, "css/*.css")
	if err != nil {
		return nil, err
	}
	style := bytes.NewBuffer(bytes.Clone(b.style))
	for _, file := range sheets {
		content, err := files.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("assets: %w", err)
		}
		style.Write(content)
	}
	a.add("app.css", "text/css; charset=utf-8", style.Bytes())
	scripts, err := fs.Glob(files, "js/*.js")
	if err != nil {
		return nil, err
	}
	for _, file := range scripts {
		content, err := files.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("assets: %w", err)
		}
		a.add(path.Base(file), "text/javascript; charset=utf-8", content)
	}
	icon, err := files.ReadFile("css/icon.svg")
	if err != nil {
		return nil, fmt.Errorf("assets: %w", err)
	}
	a.add("icon.svg", "image/svg+xml", icon)
	if b.LogoType != "" {
		a.add("logo", b.LogoType, b.logo)
	}
	return a, nil
}

func (a *assets) add(name, mediaType string, content []byte) {
	sum := sha256.Sum256(content)
	at := assetsPath + base64.RawURLEncoding.EncodeToString(sum[:9]) + "/" + name
	a.byPath[at], a.paths[name] = asset{mediaType: mediaType, content: content}, at
}

// path is where the asset of that name is, an error for one that is not there.
func (a *assets) path(name string) (string, error) {
	at, ok := a.paths[name]
	if !ok {
		return "", fmt.Errorf("there is no asset %q", name)
	}
	return at, nil
}

// serve answers a request for an asset, and reports whether it was one.
func (a *assets) serve(w http.ResponseWriter, r *http.Request) bool {
	found, ok := a.byPath[r.URL.Path]
	if !ok || r.Method != http.MethodGet && r.Method != http.MethodHead {
		return false
	}
	h := w.Header()
	h.Set("Content-Type", found.mediaType)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if strings.HasPrefix(found.mediaType, "image/svg") {
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox") // an image, never a page
	}
	_, _ = w.Write(found.content) // a browser that has gone needs no answer
	return true
}
