package keyapi

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// The parts of an OpenAPI document that the page shows.
type (
	description struct {
		Info       struct{ Title, Summary, Description string }
		Paths      ordered[pathItem]
		Components struct {
			Parameters map[string]parameter
			Responses  map[string]response
			Schemas    map[string]schema
		}
	}
	pathItem struct {
		Parameters             []parameter
		Get, Post, Put, Delete *operation
	}
	operation struct {
		Summary, Description string
		Permission           string `json:"x-permission"`
		Parameters           []parameter
		RequestBody          *struct {
			Required bool
			Content  map[string]media
		} `json:"requestBody"`
		Responses map[string]response
	}
	parameter struct {
		Ref         string `json:"$ref"`
		Name, In    string
		Description string
		Required    bool
		Schema      schema
	}
	response struct {
		Ref         string `json:"$ref"`
		Description string
		Content     map[string]media
	}
	media struct {
		Schema   schema
		Examples map[string]struct{ Value jsontext.Value }
	}
	schema struct {
		Ref         string         `json:"$ref"`
		Type        jsontext.Value `json:"type"`
		Description string
		Required    []string
		Properties  ordered[schema]
		Items       *schema
	}
)

// ordered is an object whose members keep their order.
type ordered[T any] []member[T]

type member[T any] struct {
	Name  string
	Value T
}

// UnmarshalJSONFrom reads an object member by member.
func (o *ordered[T]) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	if _, err := in.ReadToken(); err != nil {
		return err
	}
	for in.PeekKind() == '"' {
		name, err := in.ReadToken()
		if err != nil {
			return err
		}
		m := member[T]{Name: name.String()}
		if err := json.UnmarshalDecode(in, &m.Value, json.MatchCaseInsensitiveNames(true)); err != nil {
			return err
		}
		*o = append(*o, m)
	}
	_, err := in.ReadToken()
	return err
}

// view is what the page shows.
type view struct {
	Title, Summary, Description string
	Operations                  []operationView
}

type operationView struct {
	Method, Path, Summary, Description, Permission string
	Parameters, Fields                             []fieldView
	Request, Answer                                string
	Status                                         string
	Refusals                                       []fieldView
}

type fieldView struct {
	Name, Type, Description string
	Required                bool
}

func readDescription(raw []byte) (*view, error) {
	var d description
	if err := json.Unmarshal(raw, &d, json.MatchCaseInsensitiveNames(true)); err != nil {
		return nil, fmt.Errorf("read description: %w", err)
	}
	v := &view{Title: d.Info.Title, Summary: d.Info.Summary, Description: d.Info.Description}
	for _, path := range d.Paths {
		for _, o := range []struct {
			method string
			*operation
		}{{"POST", path.Value.Post}, {"GET", path.Value.Get}, {"PUT", path.Value.Put}, {"DELETE", path.Value.Delete}} {
			if o.operation != nil {
				v.Operations = append(v.Operations, d.view(o.method, path.Name, path.Value.Parameters, o.operation))
			}
		}
	}
	return v, nil
}

func (d *description) view(method, path string, shared []parameter, o *operation) operationView {
	v := operationView{Method: method, Path: path, Summary: o.Summary, Description: o.Description, Permission: o.Permission}
	for _, p := range append(slices.Clone(shared), o.Parameters...) {
		if p.Ref != "" {
			p = d.Components.Parameters[lastOf(p.Ref)]
		}
		v.Parameters = append(v.Parameters, fieldView{Name: p.Name, Type: d.typeOf(p.Schema), Description: p.Description, Required: p.Required})
	}
	if o.RequestBody != nil {
		content := o.RequestBody.Content["application/json"]
		body := d.resolve(content.Schema)
		for _, p := range body.Properties {
			required := slices.Contains(body.Required, p.Name)
			v.Fields = append(v.Fields, fieldView{Name: p.Name, Type: d.typeOf(p.Value), Description: p.Value.Description, Required: required})
		}
		v.Request = example(content)
	}
	for _, status := range slices.Sorted(maps.Keys(o.Responses)) {
		r := o.Responses[status]
		if r.Ref != "" {
			r = d.Components.Responses[lastOf(r.Ref)]
			v.Refusals = append(v.Refusals, fieldView{Name: status, Description: strings.ReplaceAll(r.Description, "`", "")})
			continue
		}
		v.Status, v.Answer = status, example(r.Content["application/json"])
	}
	return v
}

func (d *description) resolve(s schema) schema {
	if s.Ref != "" {
		return d.Components.Schemas[lastOf(s.Ref)]
	}
	return s
}

// typeOf spells a type for people.
func (d *description) typeOf(s schema) string {
	s = d.resolve(s)
	var one string
	var several []string
	switch {
	case json.Unmarshal(s.Type, &one) == nil && one == "array" && s.Items != nil:
		return "array of " + d.typeOf(*s.Items)
	case json.Unmarshal(s.Type, &several) == nil:
		return strings.Join(several, " or ")
	}
	return one
}

func lastOf(ref string) string { return ref[strings.LastIndexByte(ref, '/')+1:] }

// example is the only example of a media type, indented.
func example(m media) string {
	for _, e := range m.Examples {
		value := e.Value.Clone()
		if value.Indent(jsontext.WithIndent("  ")) == nil {
			return string(value)
		}
	}
	return ""
}
