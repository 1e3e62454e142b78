package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"gatehouse/policy"
)

// Setting is what there is to know about one setting, or about all of them: its
// description is its comment in the example, the rest is what loading does.
type Setting struct {
	// Name is the full name, as limits.key.rate; NAME stands for any name in a
	// mapping, and [] for any item of a list. Empty: the file as a whole.
	Name string
	// Type is in plain words, and empty for a section: that has settings Below.
	Type string
	// Default is as it would be written in the file; empty where there is none.
	Default     string
	Description string
	// Required settings must be there where what they stand in is.
	Required bool
	// Restart: a change waits for the next start. Others count from a reload on.
	Restart bool
	Secret  bool
	// Below are the settings of a section, and the one entry of a mapping or
	// list that stands for all.
	Below []Setting

	t     reflect.Type
	rule  rule
	value reflect.Value // the default; invalid where there is none
}

// Reference returns all settings, in the order of their types.
func Reference() Setting {
	b := referenceBuilder{descriptions: descriptions(), rules: rules()}
	root := b.setting("", newValue(reflect.TypeFor[Config]()))
	root.Description = "The configuration of Gatehouse."
	return root
}

type referenceBuilder struct {
	descriptions map[string]string
	rules        map[string]rule
}

// setting describes a setting by its name and default, which gives its type.
func (b referenceBuilder) setting(name string, value reflect.Value) Setting {
	s := Setting{
		Name: name, Description: b.descriptions[name], Restart: isLasting(name),
		t: value.Type(), rule: b.rules[name], value: value,
	}
	s.Required = s.rule.required
	if c, ok := value.Interface().(chosen); ok {
		s.rule.oneOf = c.choices()
	}
	if s.t.Kind() == reflect.Pointer && !isScalar(s.t) {
		s.t = s.t.Elem()
		value = newValue(s.t) // of the settings below, where they are there
		s.value = reflect.Value{}
	}
	switch {
	case isScalar(s.t):
	case s.t.Kind() == reflect.Struct:
		s.Below = b.fields(name, s.t, value)
	default:
		entry := b.setting(below(name, s.t), newValue(s.t.Elem()))
		entry.value, entry.Default = reflect.Value{}, ""
		s.Below = []Setting{entry}
	}
	s.Secret = s.t == reflect.TypeFor[Secret]() || len(s.Below) == 1 && s.Below[0].Secret && s.Below[0].isScalar()
	s.Type = s.words()
	s.Default = s.defaultText()
	return s
}

func (b referenceBuilder) fields(name string, t reflect.Type, defaults reflect.Value) []Setting {
	var found []Setting
	for i, field := range fieldNames(t) {
		if field == "-" {
			continue
		}
		s := b.setting(join(name, field), defaults.Field(i))
		if s.Description == "" {
			s.Description = b.descriptions[fieldName(t, field)]
		}
		found = append(found, s)
	}
	return found
}

// Facts is all but the name and the description of a setting, in one line. A
// default that is nothing at all is for the description. Of a section they are
// whether it is a list or a mapping, and required.
func (s *Setting) Facts() string {
	var facts []string
	if s.Type != "" {
		facts = append(facts, s.Type)
	}
	if s.Required {
		facts = append(facts, "required")
	}
	if s.IsSection() {
		return strings.Join(facts, "; ")
	}
	if s.Secret {
		facts = append(facts, "secret")
	}
	if s.Default != "" && s.Default != `""` && s.Default != "[]" && s.Default != "{}" {
		facts = append(facts, "default `"+s.Default+"`")
	}
	if s.Restart {
		return strings.Join(append(facts, "changes at the next start"), "; ")
	}
	return strings.Join(append(facts, "changes on reload"), "; ")
}

// IsSection reports whether there are settings in it, or in each of its entries.
func (s *Setting) IsSection() bool {
	return s.Type == "" || len(s.Below) == 1 && s.Below[0].Type == ""
}

func (s *Setting) isScalar() bool { return isScalar(s.t) }

// key is the name of the setting where it stands.
func (s *Setting) key() string { return s.Name[strings.LastIndexByte(s.Name, '.')+1:] }

// hasDefault: what must be there has none, and where a rule says so the zero
// value stands for something that cannot be written.
func (s *Setting) hasDefault() bool {
	return s.value.IsValid() && !s.Required && !s.rule.inherits && s.t.Kind() != reflect.Struct
}

// words is the type of a setting in plain words; empty for a section.
func (s *Setting) words() string {
	if len(s.rule.oneOf) > 0 {
		return "one of `" + strings.Join(s.rule.oneOf, "`, `") + "`"
	}
	if s.rule.words != "" {
		return s.rule.words
	}
	switch {
	case s.t.Kind() == reflect.Struct && !isScalar(s.t):
		return ""
	case s.t.Kind() == reflect.Slice && !isNamed(s.t):
		return each("list", s.Below[0].Type)
	case !isScalar(s.t):
		return each("mapping from names", s.Below[0].Type)
	}
	switch reflect.New(s.t).Interface().(type) {
	case *bool:
		return "`true` or `false`"
	case *int:
		return "whole number" + s.rule.bounds()
	case *float64:
		return "number" + s.rule.bounds()
	case *time.Duration:
		return "duration" + s.rule.bounds()
	case *Bytes:
		return "size" + s.rule.bounds()
	case *netip.Prefix:
		return "address or CIDR range"
	case **url.URL:
		return "URL"
	case *policy.Permission:
		return "permission"
	}
	if strings.HasSuffix(s.key(), "file") {
		return "file"
	}
	return "text"
}

// each is what a list or mapping is of; nothing is said of sections, which are
// described below.
func each(container, entry string) string {
	if entry == "" {
		return container
	}
	return container + ", each: " + entry
}

// defaultText is the default as it would be written; empty where there is none.
func (s *Setting) defaultText() string {
	if !s.hasDefault() {
		return ""
	}
	return written(s.value)
}

// written is a value as a person would write it in YAML.
func written(v reflect.Value) string {
	switch value := v.Interface().(type) {
	case time.Duration:
		return durationText(value)
	case Bytes:
		return sizeText(value)
	}
	switch k := v.Kind(); {
	case k == reflect.String && word.MatchString(v.String()):
		return v.String()
	case k == reflect.String:
		return strconv.Quote(v.String())
	case k == reflect.Slice:
		items := make([]string, v.Len())
		for i := range items {
			items[i] = written(v.Index(i))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case k == reflect.Map:
		return "{}"
	}
	return fmt.Sprint(v.Interface())
}

// word is a text that needs no quotes.
var word = regexp.MustCompile(`^[A-Za-z][A-Za-z_-]*$`)

// durationText is without the zeros of time.Duration.String.
func durationText(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// sizeText is in the largest unit that divides the size.
func sizeText(size Bytes) string {
	for _, unit := range []string{"GiB", "MiB", "KiB"} {
		if n := int64(size) / unitBytes(unit); n > 0 && n*unitBytes(unit) == int64(size) {
			return strconv.FormatInt(n, 10) + unit
		}
	}
	return strconv.FormatInt(int64(size), 10)
}
