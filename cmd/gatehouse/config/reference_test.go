package config_test

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"github.com/google/go-cmp/cmp"

	"gatehouse/cmd/gatehouse/config"
)

const (
	schemaFile    = "../../../docs/config.schema.json"
	referenceFile = "../../../docs/configuration.md"
)

func TestEverySettingIsDescribed(t *testing.T) {
	t.Parallel()
	count := 0
	eachSetting(config.Reference(), func(s config.Setting) {
		count++
		if !strings.HasSuffix(s.Description, ".") && !strings.HasSuffix(s.Description, "openssl rand -hex 32") && !strings.HasSuffix(s.Description, `}"`) {
			t.Errorf("%s has no description that is a sentence: %q; write a comment above it in config.example.yaml", s.Name, s.Description)
		}
		if words := strings.Fields(s.Description); len(words) > 0 && (words[0] == "It" || words[0] == "The same") {
			t.Errorf("%s is described by what stands elsewhere: %q", s.Name, s.Description)
		}
	})
	if count < 120 {
		t.Errorf("%d settings were found", count)
	}
}

func TestReferenceSaysWhatLoadingDoes(t *testing.T) {
	t.Parallel()
	found := map[string]config.Setting{}
	eachSetting(config.Reference(), func(s config.Setting) {
		s.Below = nil
		found[s.Name] = s
	})
	for _, want := range []struct {
		name, kind, def           string
		required, restart, secret bool
	}{
		{name: "listen", kind: "HOST:PORT", def: `":8080"`, restart: true},
		{name: "admin_token", kind: "text", def: `""`, secret: true},
		{name: "store", required: true, restart: true},
		{name: "store.redis.addrs", kind: "list, each: HOST:PORT", def: `["127.0.0.1:6379"]`, restart: true},
		{name: "store.redis.password", kind: "text", def: `""`, restart: true, secret: true},
		{name: "store.embedded.file", kind: "file", def: `"gatehouse.db.jsonl"`, restart: true},
		{name: "store.lookup", kind: "one of `strict`, `cached`", def: "strict", restart: true},
		{name: "upstreams.NAME.targets", kind: "list, each: URL", required: true},
		{name: "upstreams.NAME.max_connection_age", kind: "duration above 0", def: "5m"},
		{name: "upstreams.NAME.health_check.healthy", kind: "whole number, 1 or more", def: "2"},
		{name: "routes[].limit.rate", kind: "number, 0 to 1000000", required: true},
		{name: "routes[].max_body", kind: "size above 0"},
		{name: "limits.max_header", kind: "size above 0", def: "32KiB", restart: true},
		{name: "limits.max_body", kind: "size above 0", def: "10MiB"},
		{name: "limits.http2.max_streams", kind: "whole number, 1 to 32767", def: "250", restart: true},
		{name: "audit.keep.age", kind: "duration above 0", def: "9600h", restart: true},
		{name: "dashboard.providers[].client_secret", kind: "text", def: `""`, secret: true},
		{name: "log.sample", kind: "number, 0 to 1", def: "1"},
		{name: "log.format", kind: "one of `json`, `console`", def: "json", restart: true},
		{name: "tracing.headers", kind: "mapping from names of headers to texts", def: "{}", restart: true, secret: true},
	} {
		got := found[want.name]
		if got.Type != want.kind || got.Default != want.def || got.Required != want.required || got.Restart != want.restart || got.Secret != want.secret {
			t.Errorf("%s is %+v, want %+v", want.name, got, want)
		}
	}
}

// TestGoldenSchema: docs/config.schema.json is what the program prints.
func TestGoldenSchema(t *testing.T) {
	t.Parallel()
	golden(t, schemaFile, config.Schema())
}

// TestGoldenReference: docs/configuration.md is made of the settings there are.
func TestGoldenReference(t *testing.T) {
	t.Parallel()
	page, err := template.ParseFiles("testdata/configuration.md.tmpl")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := page.Execute(&out, chaptersOf(config.Reference())); err != nil {
		t.Fatal(err)
	}
	golden(t, referenceFile, out.Bytes())
}

func golden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is not up to date; `make golden` writes it anew (-want +got):\n%s", file, diff)
	}
}

// chapter is a section of the page: a section of the file, and the single values
// in it.
type chapter struct {
	Level, Heading, Anchor, Summary, Description string
	IsTop                                        bool // of the file
	Settings                                     []string
}

// chaptersOf are a section and all below it.
func chaptersOf(section config.Setting) []chapter {
	c := chapter{Level: "####", Heading: section.Name, Description: section.Description}
	if c.IsTop = section.Name != "" && !strings.ContainsAny(section.Name, ".["); c.IsTop {
		c.Level = "###"
	}
	c.Anchor = strings.NewReplacer("[]", "", ".", "").Replace(strings.ToLower(section.Name))
	c.Summary, _, _ = strings.Cut(section.Description, ". ")
	c.Summary = strings.TrimSuffix(c.Summary, ".") + "."
	if facts := section.Facts(); facts != "" {
		c.Description += " *" + strings.ToUpper(facts[:1]) + facts[1:] + ".*"
	}
	settings := section.Below
	if section.Type != "" {
		settings = settings[0].Below
	}
	var chapters []chapter
	for _, s := range settings {
		if s.IsSection() {
			chapters = append(chapters, chaptersOf(s)...)
			continue
		}
		c.Settings = append(c.Settings, "**`"+s.Name+"`** ("+s.Facts()+"): "+s.Description)
	}
	return append([]chapter{c}, chapters...)
}

// TestExampleOfTheReferenceIsValid: the small configuration at its beginning.
func TestExampleOfTheReferenceIsValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(referenceFile)
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	if len(blocks) != 2 {
		t.Fatalf("%d examples were found", len(blocks))
	}
	small := mustParse(t, blocks[1][1]+blocks[0][1], noEnv)
	if len(small.Routes) != 3 {
		t.Errorf("it has %d routes", len(small.Routes))
	}
	tree, err := treeOf([]byte(blocks[0][1]))
	if err != nil {
		t.Fatal(err)
	}
	if err := compiledSchema(t).Validate(tree); err != nil {
		t.Error(err)
	}
}
