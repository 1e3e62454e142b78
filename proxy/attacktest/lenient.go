package attacktest

import (
	"strconv"
	"strings"
)

// Reading is what a server takes for one request.
type Reading struct {
	Method, Path, Query string
}

// Lenient reads all the requests that there are in the bytes, as a server that
// takes everything for something: lines end with LF, with or without CR, or
// with CR alone; a line that begins with a space belongs to the one before;
// spaces around names do not count, and neither do underscores; any coding with
// "chunked" in it is chunked, and beats every length; the last length counts;
// numbers have signs, and end where they cannot be read.
func Lenient(raw string) []Reading {
	var all []Reading
	for {
		raw = strings.TrimLeft(raw, "\r\n \t\x00")
		if raw == "" {
			return all
		}
		var head []string
		head, raw = lenientHead(raw)
		all = append(all, lenientLine(head[0]))
		length, chunked := lenientFraming(head[1:])
		if chunked {
			raw = behindChunks(raw)
		} else {
			raw = raw[min(len(raw), max(length, 0)):]
		}
	}
}

// lenientHead splits the lines in front of the first empty one off.
func lenientHead(raw string) (lines []string, rest string) {
	for raw != "" {
		var line string
		line, raw = cutLine(raw)
		switch {
		case line == "" && len(lines) > 0:
			return lines, raw
		case len(lines) > 0 && (line[0] == ' ' || line[0] == '\t'):
			lines[len(lines)-1] += " " + strings.TrimSpace(line)
		default:
			lines = append(lines, line)
		}
	}
	return lines, ""
}

func cutLine(raw string) (line, rest string) {
	end := strings.IndexAny(raw, "\r\n")
	if end < 0 {
		return raw, ""
	}
	line, rest = raw[:end], raw[end+1:]
	if raw[end] == '\r' {
		rest = strings.TrimPrefix(rest, "\n")
	}
	return line, rest
}

func lenientLine(line string) Reading {
	words := strings.Fields(line)
	r := Reading{Method: words[0]}
	if len(words) > 1 {
		target := words[1]
		if _, behind, absolute := strings.Cut(target, "://"); absolute && target[0] != '/' {
			target = behind[max(0, strings.IndexByte(behind, '/')):]
		}
		target, _, _ = strings.Cut(target, "#")
		r.Path, r.Query, _ = strings.Cut(target, "?")
	}
	return r
}

func lenientFraming(lines []string) (length int, chunked bool) {
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ":")
		name = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(name), "_", "-"))
		switch name {
		case "transfer-encoding":
			chunked = chunked || strings.Contains(strings.ToLower(value), "chunked")
		case "content-length":
			length = lenientNumber(value, 10)
		}
	}
	return length, chunked
}

func lenientNumber(s string, base int) int {
	s = strings.TrimSpace(s)
	for end := len(s); end > 0; end-- {
		if n, err := strconv.ParseInt(s[:end], base, 32); err == nil {
			return int(n)
		}
	}
	return 0
}

func behindChunks(raw string) string {
	for raw != "" {
		var line string
		line, raw = cutLine(raw)
		size := lenientNumber(line, 16)
		if size <= 0 {
			break
		}
		raw = raw[min(len(raw), size):]
		_, raw = cutLine(raw)
	}
	for raw != "" {
		var line string
		if line, raw = cutLine(raw); line == "" {
			break
		}
	}
	return raw
}
