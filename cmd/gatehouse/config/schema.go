package config

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"gatehouse/policy"
)

// Schema returns a JSON Schema (draft 2020-12) of the configuration, indented.
// Whatever Parse accepts is valid by it. What no schema can say, such as whether
// a route names an upstream that is there, it does not refuse.
func Schema() []byte {
	root := Reference()
	s := schemaOf(&root)
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.Defs = definitions()
	var out bytes.Buffer
	if err := json.Indent(&out, encode(s), "", "  "); err != nil {
		panic(err) // it was encoded right before
	}
	return append(out.Bytes(), '\n')
}

// schema is as much of JSON Schema as is needed.
type schema struct {
	Schema               string          `json:"$schema,omitempty"`
	Description          string          `json:"description,omitempty"`
	Default              json.RawMessage `json:"default,omitempty"`
	Ref                  string          `json:"$ref,omitempty"`
	Type                 string          `json:"type,omitempty"`
	Const                json.RawMessage `json:"const,omitempty"`
	Enum                 []string        `json:"enum,omitempty"`
	Pattern              string          `json:"pattern,omitempty"`
	PatternErrorMessage  string          `json:"patternErrorMessage,omitempty"` // of editors: not in the standard, which lets it be
	MinLength            int             `json:"minLength,omitempty"`
	Minimum              *float64        `json:"minimum,omitempty"`
	Maximum              *float64        `json:"maximum,omitempty"`
	Items                *schema         `json:"items,omitempty"`
	MinItems             int             `json:"minItems,omitempty"`
	UniqueItems          bool            `json:"uniqueItems,omitempty"`
	Properties           *properties     `json:"properties,omitempty"`
	PropertyNames        *schema         `json:"propertyNames,omitempty"`
	AdditionalProperties any             `json:"additionalProperties,omitempty"`
	MinProperties        int             `json:"minProperties,omitempty"`
	MaxProperties        int             `json:"maxProperties,omitempty"`
	Required             []string        `json:"required,omitempty"`
	AnyOf                []*schema       `json:"anyOf,omitempty"`
	OneOf                []*schema       `json:"oneOf,omitempty"`
	Not                  *schema         `json:"not,omitempty"`
	Defs                 *properties     `json:"$defs,omitempty"`
}

// properties are schemas by name, in an order that encoding/json keeps.
type properties []struct {
	name   string
	schema *schema
}

func (p *properties) add(name string, s *schema) {
	*p = append(*p, struct {
		name   string
		schema *schema
	}{name, s})
}

// MarshalJSON writes an object.
func (p properties) MarshalJSON() ([]byte, error) {
	out := []byte{'{'}
	for i, property := range p {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(append(strconv.AppendQuote(out, property.name), ':'), encode(property.schema)...)
	}
	return append(out, '}'), nil
}

// schemaOf is the schema of a setting and all below it.
func schemaOf(s *Setting) *schema {
	var made *schema
	switch {
	case isScalar(s.t):
		made = scalarSchema(s)
	case s.t.Kind() == reflect.Struct:
		made = sectionSchema(s)
	case s.t.Kind() == reflect.Slice && !isNamed(s.t):
		made = &schema{Type: "array", Items: schemaOf(&s.Below[0]), UniqueItems: s.rule.unique, MinItems: least(s.rule.nonEmpty)}
	default:
		made = mappingSchema(s)
	}
	made.Description = s.Description
	if facts := s.Facts(); facts != "" && s.Description != "" {
		made.Description += "\n\n" + strings.ToUpper(facts[:1]) + facts[1:] + "."
	}
	if s.hasDefault() {
		made.Default = jsonOf(s.value)
	}
	return made
}

func least(nonEmpty bool) int {
	if nonEmpty {
		return 1
	}
	return 0
}

func sectionSchema(s *Setting) *schema {
	made := &schema{Type: "object", Properties: &properties{}, AdditionalProperties: false}
	for i := range s.Below {
		setting := &s.Below[i]
		name := setting.key()
		made.Properties.add(name, schemaOf(setting))
		if setting.Required {
			made.Required = append(made.Required, name)
		}
	}
	for _, name := range s.rule.exactly {
		made.OneOf = append(made.OneOf, &schema{Required: []string{name}})
	}
	for _, name := range s.rule.some {
		made.AnyOf = append(made.AnyOf, &schema{Required: []string{name}})
	}
	return made
}

func mappingSchema(s *Setting) *schema {
	made := &schema{Type: "object", AdditionalProperties: schemaOf(&s.Below[0]), MinProperties: least(s.rule.nonEmpty || s.rule.single)}
	if s.rule.single {
		made.MaxProperties = 1
	}
	if s.rule.names != "" || len(s.rule.namesOf) > 0 {
		made.PropertyNames = &schema{Type: "string", Pattern: s.rule.names, Enum: s.rule.namesOf}
		if s.rule.names != "" {
			made.PropertyNames.PatternErrorMessage = "It is not a name as the description says."
		}
	}
	if s.rule.reserved != "" {
		made.PropertyNames.Not = &schema{Const: jsonOf(reflect.ValueOf(s.rule.reserved))}
	}
	return made
}

// scalarSchema accepts a reference to the environment in the place of any value.
func scalarSchema(s *Setting) *schema {
	value := &schema{}
	switch reflect.New(s.t).Interface().(type) {
	case *bool:
		value.Type = "boolean"
	case *int:
		value.Type, value.Minimum, value.Maximum = "integer", s.rule.least, s.rule.most
	case *float64:
		value.Type, value.Minimum, value.Maximum = "number", s.rule.least, s.rule.most
	case *time.Duration:
		value.Ref = reference("duration", s.rule.aboveZero)
	case *Bytes:
		value.Ref = reference("size", s.rule.aboveZero)
	case *netip.Prefix:
		value.Ref = reference("addresses", false)
	case *policy.Permission:
		value.Ref = reference("permission", false)
	default:
		switch {
		case len(s.rule.oneOf) > 0:
			value.Type, value.Enum = "string", s.rule.oneOf
		case s.rule.pattern == "" && !s.rule.nonEmpty:
			return &schema{Ref: reference("text", false)}
		default:
			value.Ref, value.Type, value.MinLength = reference("text", false), "string", least(s.rule.nonEmpty)
			value.Pattern, value.PatternErrorMessage = s.rule.pattern, misfitting(s)
		}
	}
	return &schema{AnyOf: []*schema{value, {Ref: reference("environment", false)}}}
}

// misfitting is what an editor says of a text that does not fit the pattern.
func misfitting(s *Setting) string {
	switch {
	case s.rule.pattern == "":
		return ""
	case s.Type == "text":
		return "It is not as the description says."
	}
	return "It is no " + s.Type + " as the description says."
}

func reference(name string, aboveZero bool) string {
	if aboveZero {
		name += "AboveZero"
	}
	return "#/$defs/" + name
}

// definitions are the schemas of what many settings are.
func definitions() *properties {
	const (
		number   = `(?:[0-9]+\.?[0-9]*|\.[0-9]+)`
		nonZero  = `(?:[0-9]*[1-9][0-9]*\.?[0-9]*|[0-9]*\.[0-9]*[1-9][0-9]*)`
		zero     = `(?:0+\.?0*|\.0+)`
		unit     = `(?:ns|us|µs|μs|ms|s|m|h)`
		bytes    = `(?:kB|MB|GB|KiB|MiB|GiB)?$`
		plain    = `(?:[^$]|\$\$|\$[^${])*`
		variable = `\$\{[A-Za-z_][A-Za-z0-9_]*(?::-(?:[^}$]|\$+[^{}$])*\$*)?\}`
	)
	zeroNumber, one := &schema{Const: json.RawMessage("0")}, 1.0
	text := func(pattern, mend string) *schema {
		return &schema{Type: "string", Pattern: pattern, PatternErrorMessage: mend}
	}
	d := &properties{}
	const malformed = "A ${ begins neither ${NAME} nor ${NAME:-default}: write $$ for a dollar sign."
	d.add("text", text(`^(?:`+plain+variable+`)*`+plain+`\$?$`, malformed))
	d.add("environment", text(`^(?:`+plain+variable+`)+`+plain+`\$?$`, malformed))
	const durationMend, sizeMend = "Write it as 250ms, 30s or 5m.", "Write a whole number of bytes, or of KiB, MiB, GiB, kB, MB or GB, as in 10MiB."
	d.add("duration", &schema{AnyOf: []*schema{text(`^(?:\+?(?:`+number+unit+`)+|-(?:`+zero+unit+`)+|[+-]?0)$`, durationMend), zeroNumber}})
	d.add("durationAboveZero", text(`^\+?(?:`+number+unit+`)*`+nonZero+unit+`(?:`+number+unit+`)*$`, durationMend))
	d.add("size", &schema{AnyOf: []*schema{text(`^(?:0|[1-9][0-9]*)`+bytes, sizeMend), {Type: "integer", Minimum: new(float64)}}})
	d.add("sizeAboveZero", &schema{AnyOf: []*schema{text(`^[1-9][0-9]*`+bytes, sizeMend), {Type: "integer", Minimum: &one}}})
	d.add("addresses", text(`^[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?$`, "Write it as 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1."))
	d.add("permission", text(`^[a-z0-9_]+:[a-z0-9_]+$`, "Write PRODUCT:ACTION."))
	return d
}

// jsonOf is a default in JSON, as it would be written in the file.
func jsonOf(v reflect.Value) json.RawMessage {
	switch value := v.Interface().(type) {
	case time.Duration, Bytes:
		return encode(written(v))
	default:
		switch {
		case v.Kind() == reflect.String:
			return encode(v.String())
		case v.Kind() == reflect.Slice && v.Len() == 0:
			return json.RawMessage("[]")
		case v.Kind() == reflect.Map && v.Len() == 0:
			return json.RawMessage("{}")
		}
		return encode(value)
	}
}

// encode is encoding/json without escapes for HTML.
func encode(value any) json.RawMessage {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err) // it is made of texts and numbers
	}
	return bytes.TrimSpace(out.Bytes())
}
