package config

import (
	"reflect"
	"regexp"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// descriptions are the comments of the example, by the name of the setting that
// each stands above, and under fieldName by its type and field.
func descriptions() map[string]string {
	text := Uncommented(string(example), settingNames(reflect.TypeFor[Config]())...)
	r := commentReader{lines: strings.Split(text, "\n"), found: map[string]string{}}
	if root, ok := newSource("example.yaml").parse([]byte(text)); ok {
		r.read("", root, reflect.TypeFor[Config]())
	}
	return r.found
}

// Uncommented returns the text of the example with those settings that are
// commented out in it, as "# name: …" is, if they have one of the names.
func Uncommented(text string, names ...string) string {
	commented := regexp.MustCompile(`(?m)^( *)# ( *)(?:# )?((?:- )?(?:` + strings.Join(names, "|") + `):(?: |$))`)
	return commented.ReplaceAllString(text, "$1$2$3")
}

// settingNames are the names of all settings of a type and below it.
func settingNames(t reflect.Type) []string {
	if isScalar(t) {
		return nil
	}
	if t.Kind() != reflect.Struct {
		return settingNames(t.Elem())
	}
	var names []string
	for i, name := range fieldNames(t) {
		if name != "-" {
			names = append(append(names, name), settingNames(t.Field(i).Type)...)
		}
	}
	return names
}

// commentReader finds what stands above each setting of a text.
type commentReader struct {
	lines []string
	found map[string]string
}

func (r *commentReader) read(name string, node ast.Node, t reflect.Type) {
	if t.Kind() == reflect.Pointer && !isScalar(t) {
		t = t.Elem()
	}
	if sequence, ok := node.(*ast.SequenceNode); ok {
		for _, item := range sequence.Values {
			r.read(below(name, t), item, t.Elem())
		}
		return
	}
	for _, pair := range pairsOf(node) {
		key := pair.Key.GetToken()
		if t.Kind() != reflect.Struct {
			r.read(below(name, t), pair.Value, t.Elem())
			continue
		}
		for i, field := range fieldNames(t) {
			if field == key.Value {
				r.note(join(name, field), r.above(key.Position.Line, field))
				r.note(fieldName(t, field), r.above(key.Position.Line, field))
				r.read(join(name, field), pair.Value, t.Field(i).Type)
			}
		}
	}
}

func pairsOf(node ast.Node) []*ast.MappingValueNode {
	switch n := node.(type) {
	case *ast.MappingNode:
		return n.Values
	case *ast.MappingValueNode:
		return []*ast.MappingValueNode{n}
	}
	return nil
}

// note keeps the first description of a name.
func (r *commentReader) note(name, description string) {
	if r.found[name] == "" {
		r.found[name] = description
	}
}

// above is the comment directly above a line, which must begin with the key: one
// that stands behind others has none of its own. An empty comment line parts
// paragraphs.
func (r *commentReader) above(line int, key string) string {
	line-- // they count from 1
	if !strings.HasPrefix(strings.TrimLeft(r.lines[line], " -"), key+":") {
		return ""
	}
	var paragraphs []string
	for line--; line >= 0 && strings.HasPrefix(strings.TrimSpace(r.lines[line]), "#"); line-- {
		said := strings.TrimSpace(strings.TrimLeft(r.lines[line], " #"))
		switch {
		case said == "":
			paragraphs = append(paragraphs, "")
		case len(paragraphs) == 0:
			paragraphs = []string{said}
		default:
			last := len(paragraphs) - 1
			paragraphs[last] = strings.TrimSuffix(said+" "+paragraphs[last], " ")
		}
	}
	inverted := make([]string, 0, len(paragraphs))
	for i := range paragraphs {
		inverted = append(inverted, paragraphs[len(paragraphs)-1-i])
	}
	return strings.Join(inverted, "\n\n")
}

// join names a setting by that which it stands in.
func join(name, key string) string {
	if name == "" {
		return key
	}
	return name + "." + key
}

// below names any entry of a mapping or item of a list.
func below(name string, t reflect.Type) string {
	if t.Kind() == reflect.Slice && !isNamed(t) {
		return name + "[]"
	}
	return name + ".NAME"
}

// fieldName is the name of a setting wherever its type is used.
func fieldName(t reflect.Type, field string) string { return t.String() + ":" + field }
