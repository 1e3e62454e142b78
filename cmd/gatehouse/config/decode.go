package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/token"
)

// decoder fills Go values from YAML nodes by their yaml tags, and reports what
// does not fit instead of stopping there. What could not be read keeps its
// default.
type decoder struct {
	*source
	lookupEnv func(string) (string, bool)
}

// named is the element of a list that is written as a mapping from names.
type named interface{ setName(name string) }

// isNamed reports whether a type is a list that is written as a mapping.
func isNamed(t reflect.Type) bool {
	return t.Kind() == reflect.Slice && reflect.PointerTo(t.Elem()).Implements(reflect.TypeFor[named]())
}

func (d *decoder) decode(p path, node ast.Node, into reflect.Value) {
	node, ok := d.unwrap(p, node)
	if !ok {
		return
	}
	t := into.Type()
	switch {
	case isScalar(t):
		d.scalar(p, node, into)
	case t.Kind() == reflect.Pointer:
		value := newValue(t.Elem())
		d.decode(p, node, value)
		into.Set(value.Addr())
	case t.Kind() == reflect.Struct:
		d.fields(p, node, into)
	case t.Kind() == reflect.Map:
		d.entries(p, node, into)
	case isNamed(t):
		d.namedItems(p, node, into)
	case t.Kind() == reflect.Slice:
		d.items(p, node, into)
	default:
		panic("config: no settings can be of type " + t.String())
	}
}

// newValue returns a settable value of the type, with its defaults.
func newValue(t reflect.Type) reflect.Value {
	value := reflect.New(t)
	if v, ok := value.Interface().(defaulter); ok {
		v.setDefaults()
	}
	return value.Elem()
}

// unwrap refuses what stands for another value or changes how one is read.
func (d *decoder) unwrap(p path, node ast.Node) (ast.Node, bool) {
	switch n := node.(type) {
	case nil, *ast.NullNode:
		d.unreadable(p, "has no value", "give it one, or remove it")
		return nil, false
	case *ast.AnchorNode:
		d.report(p, "has an anchor (&), which is not supported", "remove the anchor, or put a value that begins with & in quotes")
		return d.unwrap(p, n.Value)
	case *ast.AliasNode:
		d.unreadable(p, "is an alias (*), which is not supported", "write out what it stands for, or put a value that begins with * in quotes")
		return nil, false
	case *ast.TagNode:
		d.unreadable(p, "has a tag (!), which is not supported", "remove the tag, or put a value that begins with ! in quotes")
		return nil, false
	}
	return node, true
}

// fields decodes a mapping whose keys are the settings of a struct.
func (d *decoder) fields(p path, node ast.Node, into reflect.Value) {
	names := fieldNames(into.Type())
	for _, pair := range d.pairs(p, node) {
		i := slices.Index(names, pair.key)
		if i >= 0 && pair.key != "-" {
			d.decode(p.key(pair.key), pair.value, into.Field(i))
			continue
		}
		known := slices.DeleteFunc(slices.Clone(names), func(name string) bool { return name == "-" })
		mend := "remove it; the settings here are " + strings.Join(known, ", ")
		if name, ok := meant(pair.key, known); ok {
			mend = fmt.Sprintf("did you mean %q?", name)
		}
		d.reportAt(pair.at, p.key(pair.key), "is not a setting", mend)
	}
}

// fieldNames returns the name of each field as it is in the file, "-" for one
// that is not.
func fieldNames(t reflect.Type) []string {
	names := make([]string, t.NumField())
	for i := range names {
		names[i] = t.Field(i).Tag.Get("yaml")
	}
	return names
}

// entries decodes a mapping from names. A value that could not be read has
// its name there all the same.
func (d *decoder) entries(p path, node ast.Node, into reflect.Value) {
	decoded := reflect.MakeMap(into.Type())
	for _, pair := range d.pairs(p, node) {
		value := newValue(into.Type().Elem())
		d.decode(p.key(pair.key), pair.value, value)
		decoded.SetMapIndex(reflect.ValueOf(pair.key), value)
	}
	into.Set(decoded)
}

// namedItems decodes a mapping from names into a list in its order.
func (d *decoder) namedItems(p path, node ast.Node, into reflect.Value) {
	decoded := reflect.MakeSlice(into.Type(), 0, 0)
	for _, pair := range d.pairs(p, node) {
		value := newValue(into.Type().Elem())
		value.Addr().Interface().(named).setName(pair.key)
		d.decode(p.key(pair.key), pair.value, value)
		decoded = reflect.Append(decoded, value)
	}
	into.Set(decoded)
}

// items decodes a sequence. An item that could not be read has its place
// there all the same, so that the others keep their index.
func (d *decoder) items(p path, node ast.Node, into reflect.Value) {
	sequence, ok := node.(*ast.SequenceNode)
	if !ok {
		d.unreadable(p, "is "+describe(node)+" where a list is needed", `write [a, b], or one "- item" in a line`)
		return
	}
	decoded := reflect.MakeSlice(into.Type(), 0, len(sequence.Values))
	for i, item := range sequence.Values {
		value := newValue(into.Type().Elem())
		d.positions[p.index(i).String()] = nodePosition(item)
		d.decode(p.index(i), item, value)
		decoded = reflect.Append(decoded, value)
	}
	into.Set(decoded)
}

// pair is one "key: value" of a mapping, and where its key is.
type pair struct {
	key   string
	value ast.Node
	at    position
}

// pairs returns the pairs of a mapping whose keys are texts, each key once.
// It remembers where their values are.
func (d *decoder) pairs(p path, node ast.Node) []pair {
	var nodes []*ast.MappingValueNode
	switch n := node.(type) {
	case *ast.MappingNode:
		nodes = n.Values
	case *ast.MappingValueNode:
		nodes = []*ast.MappingValueNode{n}
	default:
		d.unreadable(p, "is "+describe(node)+" where a mapping is needed", `write one "name: value" in a line, indented below it`)
		return nil
	}
	found := make([]pair, 0, len(nodes))
	first := map[string]position{}
	for _, n := range nodes {
		at := nodePosition(n.Key)
		key, isText := n.Key.(*ast.StringNode)
		switch {
		case n.Key.IsMergeKey():
			d.unread[p.String()] = true // whatever is missing there may be in what is merged
			d.reportAt(at, p, "has a merge key (<<), which is not supported", "write the settings out")
			continue
		case !isText:
			d.unread[p.key("?").String()] = true
			d.reportAt(at, p, "has a key that is not text", "put the key in quotes")
			continue
		}
		if before, seen := first[key.Value]; seen {
			d.reportAt(at, p.key(key.Value), fmt.Sprintf("is there twice, first in line %d", before.line), "remove one of them")
			continue
		}
		first[key.Value] = at
		d.positions[p.key(key.Value).String()] = at
		if _, ok := literalOf(n.Value); ok {
			d.positions[p.key(key.Value).String()] = nodePosition(n.Value)
		}
		found = append(found, pair{key: key.Value, value: n.Value, at: at})
	}
	return found
}

func describe(node ast.Node) string {
	switch node.(type) {
	case *ast.MappingNode, *ast.MappingValueNode:
		return "a mapping"
	case *ast.SequenceNode:
		return "a list"
	}
	return "a single value"
}

// nodePosition is where a node begins. A mapping in block style begins with
// its first key, though its token is a colon.
func nodePosition(node ast.Node) position {
	if m, ok := node.(*ast.MappingNode); ok && !m.IsFlowStyle && len(m.Values) > 0 {
		return nodePosition(m.Values[0].Key)
	}
	if node == nil {
		return positionOf(nil)
	}
	return positionOf(node.GetToken())
}

// literalOf returns the scalar that a node is, if it is one.
func literalOf(node ast.Node) (literal, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		quoted := n.Token.Type == token.SingleQuoteType || n.Token.Type == token.DoubleQuoteType
		return literal{text: n.Value, quoted: quoted}, true
	case *ast.LiteralNode:
		return literal{text: n.Value.Value, quoted: true}, true
	case *ast.BoolNode:
		return literal{text: n.Token.Value, isBool: true}, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.InfinityNode, *ast.NanNode:
		return literal{text: n.GetToken().Value, isNumber: true}, true
	}
	return literal{}, false
}
