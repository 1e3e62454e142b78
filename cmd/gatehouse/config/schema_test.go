package config_test

import (
	"bytes"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v4"

	"gatehouse/cmd/gatehouse/config"
)

// compiledSchema is the schema, as a library that knows nothing of us reads it.
func compiledSchema(t testing.TB) *jsonschema.Schema {
	t.Helper()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	if err := compiler.AddResource("config.schema.json", document); err != nil {
		t.Fatal(err)
	}
	compiled, err := compiler.Compile("config.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	return compiled
}

func TestSchemaIsJSONSchema(t *testing.T) {
	t.Parallel()
	document, err := jsonschema.UnmarshalJSON(bytes.NewReader(config.Schema()))
	if err != nil {
		t.Fatal(err)
	}
	said, ok := document.(map[string]any)
	if !ok || said["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("$schema is %v", said["$schema"])
	}
	meta, err := jsonschema.NewCompiler().Compile("https://json-schema.org/draft/2020-12/schema")
	if err != nil {
		t.Fatal(err)
	}
	if err := meta.Validate(document); err != nil {
		t.Errorf("the schema is none: %v", err)
	}
	compiledSchema(t)
}

// treeOf is a YAML text as an editor sees it, read by a library that is not the
// loader's.
func treeOf(text []byte) (any, error) {
	var tree any
	err := yaml.Unmarshal(bytes.TrimPrefix(text, []byte("\ufeff")), &tree)
	return tree, err
}

// alternatives are those settings of the example, commented out, in the place of
// which others are there.
var alternatives = []string{"embedded", "file", "account_claim", "account_by_domain"}

func TestExampleIsValidByTheSchema(t *testing.T) {
	t.Parallel()
	compiled := compiledSchema(t)
	names := slices.DeleteFunc(settingNames(), func(name string) bool { return slices.Contains(alternatives, name) })
	whole := strings.Replace(config.Uncommented(exampleText(t), names...), "\n  url: \"\"\n", "\n  url: https://d.example.com\n", 1)
	for name, text := range map[string]string{"as it is": exampleText(t), "uncommented": whole} {
		tree, err := treeOf([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if err := compiled.Validate(tree); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		mustParse(t, text, envOf(map[string]string{"ACME_SSO_SECRET": "x"}))
	}
}

// aboutOneValue are the faults that a schema sees too: others are about several
// settings, or need more than a pattern.
var aboutOneValue = regexp.MustCompile(`is not a setting|is needed|is not one of its values|has no value|is not (a|an|true or false)\b|without a unit|negative duration|` +
	`is not above 0|names no (address|target|action|file|value)|is no (prefix|name of)|: is missing; write|needs no permission|has no rate|has no route|is there beside redis`)

// TestSchemaOnTheCasesOfTheLoader: what is valid is so by the schema, and what
// is wrong with one value is refused by it.
func TestSchemaOnTheCasesOfTheLoader(t *testing.T) {
	t.Parallel()
	compiled := compiledSchema(t)
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	valid, refused := 0, 0
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		input, _, want := caseOf(t, archive)
		tree, err := treeOf(input)
		switch {
		case err != nil: // no YAML, or a key twice
		case name == "testdata/colon_in_brackets.txtar": // readers of YAML differ about it
		case want == "ok\n":
			valid++
			if err := compiled.Validate(tree); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case slices.ContainsFunc(strings.Split(want, "\n"), func(line string) bool {
			return aboutOneValue.MatchString(line) && !strings.Contains(line, "environment")
		}):
			refused++
			if err := compiled.Validate(tree); err == nil {
				t.Errorf("%s is valid by the schema, and refused: %s", name, want)
			}
		}
	}
	if valid < 15 || refused < 50 {
		t.Errorf("%d valid and %d refused cases were found", valid, refused)
	}
}

// settingNames are the last parts of the names of all settings.
func settingNames() []string {
	var names []string
	eachSetting(config.Reference(), func(s config.Setting) { names = append(names, s.Name[strings.LastIndexByte(s.Name, '.')+1:]) })
	return names
}

// eachSetting calls do with the setting and all below it that have a name of
// their own.
func eachSetting(s config.Setting, do func(config.Setting)) {
	if s.Name != "" && !strings.HasSuffix(s.Name, "NAME") && !strings.HasSuffix(s.Name, "[]") {
		do(s)
	}
	for _, below := range s.Below {
		eachSetting(below, do)
	}
}

// FuzzSchema: what the loader accepts is valid by the schema.
func FuzzSchema(f *testing.F) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, name := range names {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range archive.Files {
			if file.Name == "config.yaml" {
				f.Add(file.Data)
			}
		}
	}
	f.Add(textOf(f, fullTree(f)))
	compiled := compiledSchema(f)
	lookupEnv := func(name string) (string, bool) { return "serp", len(name) < 4 }
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 8<<10 {
			t.Skip("too slow")
		}
		if _, err := config.Parse("f.yaml", data, lookupEnv); err != nil {
			return
		}
		tree, err := treeOf(data)
		if err != nil {
			t.Skip("readers of YAML differ about it")
		}
		if err := compiled.Validate(tree); err != nil {
			t.Errorf("it is accepted by the loader, and refused by the schema: %v", err)
		}
	})
}
