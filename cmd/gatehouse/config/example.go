package config

import _ "embed"

//go:embed example.yaml
var example []byte

// Example is config.example.yaml, which documents every setting and is valid
// as it is.
func Example() []byte { return example }
