package contract

import (
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Given is a member of a body that may be left out. null is no value of it.
type Given[T any] struct {
	Present bool
	Value   T
}

// UnmarshalJSONFrom reads the value of a member that is there.
func (g *Given[T]) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	if in.PeekKind() == 'n' {
		return errors.New("null is no value")
	}
	g.Present = true
	return json.UnmarshalDecode(in, &g.Value)
}

// Nullable is a member of a body that may be left out, and may be null.
type Nullable[T any] struct {
	Present bool
	Value   *T // nil for null
}

// UnmarshalJSONFrom reads the value of a member that is there.
func (n *Nullable[T]) UnmarshalJSONFrom(in *jsontext.Decoder) error {
	n.Present = true
	return json.UnmarshalDecode(in, &n.Value)
}
