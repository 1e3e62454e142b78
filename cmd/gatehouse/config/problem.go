package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem is one fault of a configuration: where it is, and how to mend it.
// It never shows a secret or a value from the environment.
type Problem struct {
	File         string
	Line, Column int // counted from 1
	// Path names the setting, as in routes[0].permission; it is empty where
	// the fault is the file's.
	Path  string
	Fault string
	Mend  string
}

// String returns the problem in one line, as FILE:LINE:COLUMN: PATH: FAULT; MEND.
func (p Problem) String() string {
	where := fmt.Sprintf("%s:%d:%d: ", p.File, p.Line, p.Column)
	if p.Path != "" {
		where += p.Path + ": "
	}
	return where + p.Fault + "; " + p.Mend
}

// Problems is every fault of a configuration, by position. It is never empty
// when it is an error.
type Problems []Problem

// Error returns one problem a line.
func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

func byPosition(a, b Problem) int {
	return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Path, b.Path))
}

// oneOf is the mend of a name that is not among the known ones: those, the
// most similar first, or instead when there are none.
func oneOf(name string, known []string, instead string) string {
	const shown = 6
	if len(known) == 0 {
		return instead
	}
	known = slices.SortedStableFunc(slices.Values(known), func(a, b string) int {
		return cmp.Compare(distance(name, a), distance(name, b))
	})
	if len(known) > shown {
		known = append(known[:shown], "…")
	}
	return "use one of " + strings.Join(known, ", ")
}

// meant returns the known name that name is a slip of, if it is one.
func meant(name string, known []string) (string, bool) {
	best := ""
	for _, k := range known {
		if distance(name, k) <= max(1, len(k)/3) && (best == "" || distance(name, k) < distance(name, best)) {
			best = k
		}
	}
	return best, best != ""
}

// distance is the number of bytes to insert, remove, change or swap with the
// next (optimal string alignment). Long names are similar to none.
func distance(a, b string) int {
	const long = 128
	if len(a) > long || len(b) > long {
		return len(a) + len(b)
	}
	d := make([][]int, len(a)+1)
	for i := range d {
		d[i] = make([]int, len(b)+1)
		d[i][0] = i
	}
	for j := range d[0] {
		d[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d[i][j] = min(d[i-1][j]+1, d[i][j-1]+1, d[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d[i][j] = min(d[i][j], d[i-2][j-2]+1)
			}
		}
	}
	return d[len(a)][len(b)]
}
