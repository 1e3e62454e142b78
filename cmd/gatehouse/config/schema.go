package config

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"reflect"
	"strconv"
	"time"

	"gatehouse/policy"
)

// Schema returns a JSON Schema (draft 2020-12) of the configuration, indented.
// Whatever Parse accepts is valid by it. What no schema can say, such as whether
// a route names an upstream that is there, it does not refuse.
func Schema() []byte {
	root := Reference()
	s := schemaOf(&root)
	s.Schema, s.Title = "https://json-schema.org/draft/2020-12/schema", "Gatehouse: config.yaml"
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
	Title                string          `json:"title,omitempty"`
	Description          string          `json:"description,omitempty"`
	Default              json.RawMessage `json:"default,omitempty"`
	Ref                  string          `json:"$ref,omitempty"`
	Type                 string          `json:"type,omitempty"`
	Const                json.RawMessage `json:"const,omitempty"`
	Enum                 []string        `json:"enum,omitempty"`
	Pattern              string          `json:"pattern,omitempty"`
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
	AllOf                []*schema       `json:"allOf,omitempty"`
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
		made.PropertyNames = &schema{Pattern: s.rule.names, Enum: s.rule.namesOf}
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
			value.Ref, value.Pattern, value.MinLength = reference("text", false), s.rule.pattern, least(s.rule.nonEmpty)
		}
	}
	return &schema{AnyOf: []*schema{value, {Ref: reference("environment", false)}}}
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
		unit     = `(?:ns|us|µs|μs|ms|s|m|h)`
		zero     = `(?:0+\.?0*|\.0+)`
		duration = `^(?:\+?(?:` + number + unit + `)+|-(?:` + zero + unit + `)+|[+-]?0)$`
		size     = `^(?:0|[1-9][0-9]*)(?:kB|MB|GB|KiB|MiB|GiB)?$`
		plain    = `(?:[^$]|\$\$|\$[^${])*`
		variable = `\$\{[A-Za-z_][A-Za-z0-9_]*(?::-(?:[^}$]|\$+[^{}$])*\$*)?\}`
	)
	noDigit := &schema{Pattern: `^[^1-9]*$`}
	zeroNumber := &schema{Const: json.RawMessage("0")}
	text := func(title, description, pattern string) *schema {
		return &schema{Title: title, Description: description, Type: "string", Pattern: pattern}
	}
	d := &properties{}
	d.add("text", text("Text", "In it, ${NAME} and ${NAME:-default} stand for environment variables, and $$ for a dollar sign.", `^(?:`+plain+variable+`)*`+plain+`\$?$`))
	d.add("environment", text("Text with ${NAME}", "A value that is taken from the environment, as ${NAME} or ${NAME:-default}.", `^(?:`+plain+variable+`)+`+plain+`\$?$`))
	d.add("duration", &schema{
		Title: "Duration", Description: "As 250ms, 30s, 5m or 24h.",
		AnyOf: []*schema{text("", "", duration), zeroNumber},
	})
	d.add("durationAboveZero", &schema{Title: "Duration", Description: "As 250ms, 30s, 5m or 24h, and above 0.", Type: "string", Pattern: duration, Not: noDigit})
	d.add("size", &schema{
		Title: "Size", Description: "A whole number of bytes, or of kB, MB, GB, KiB, MiB or GiB, as 10MiB.",
		AnyOf: []*schema{text("", "", size), {Type: "integer", Minimum: new(float64)}},
	})
	one := 1.0
	d.add("sizeAboveZero", &schema{
		Title: "Size", Description: "A whole number of bytes, or of kB, MB, GB, KiB, MiB or GiB, as 10MiB, and above 0.",
		AnyOf: []*schema{{Type: "string", Pattern: size, Not: noDigit}, {Type: "integer", Minimum: &one}},
	})
	d.add("addresses", text("Address or CIDR range", "As 10.0.0.0/8, 2001:db8::/32 or 192.0.2.1.", `^[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?$`))
	d.add("permission", text("Permission", "PRODUCT:ACTION of the products.", `^[a-z0-9_]+:[a-z0-9_]+$`))
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
