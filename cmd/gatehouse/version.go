package main

import (
	"cmp"
	"runtime/debug"
	"strings"
)

// The linker sets these for an image, whose build sees no repository.
var stampedVersion, stampedRevision string //nolint:gochecknoglobals // see above

// build says which build this is, "unknown" for what is not known of it.
type build struct {
	version, revision, goVersion string
	modified                     bool // it is not that of the revision alone
}

func readBuild() build {
	const unknown = "unknown"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{version: cmp.Or(stampedVersion, unknown), revision: cmp.Or(stampedRevision, unknown), goVersion: unknown}
	}
	b := build{version: cmp.Or(stampedVersion, info.Main.Version, unknown), goVersion: info.GoVersion}
	for _, setting := range info.Settings {
		switch setting.Key {
		case "vcs.revision":
			b.revision = setting.Value
		case "vcs.modified":
			b.modified = setting.Value == "true"
		}
	}
	b.revision = cmp.Or(stampedRevision, b.revision, unknown)
	return b
}

// version is the module's version, the commit that the binary was built from,
// and that of Go.
func version() string {
	b := readBuild()
	words := []string{b.version, b.revision[:min(12, len(b.revision))]}
	if b.modified {
		words = append(words, "(modified)")
	}
	return strings.Join(append(words, b.goVersion), " ")
}
