package proxy_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"gatehouse/proxy"
)

// frameOf is a frame of RFC 6455 §5.2 with a length spelt in so many bits.
func frameOf(length int, bits int, masked bool) []byte {
	head := []byte{0x82, 0}
	switch bits {
	case 7:
		head[1] = byte(length) // #nosec G115 -- at most 125
	case 16:
		head[1] = 126
		head = binary.BigEndian.AppendUint16(head, uint16(length)) // #nosec G115 -- the test's own
	case 64:
		head[1] = 127
		head = binary.BigEndian.AppendUint64(head, uint64(length)) // #nosec G115 -- the test's own
	}
	if masked {
		head[1] |= 0x80
		head = append(head, 1, 2, 3, 4)
	}
	return append(head, bytes.Repeat([]byte{0x88}, length)...)
}

// TestFramesEndWhereTheyEnd, and nowhere else, also byte by byte.
func TestFramesEndWhereTheyEnd(t *testing.T) {
	t.Parallel()
	var stream []byte
	var want []int
	for _, f := range [][]byte{
		frameOf(0, 7, false), frameOf(1, 7, true), frameOf(125, 7, false), frameOf(0, 16, true), frameOf(126, 16, false),
		frameOf(65535, 16, true), frameOf(3, 64, false), frameOf(70000, 64, true), frameOf(0, 64, false),
	} {
		stream = append(stream, f...)
		want = append(want, len(stream))
	}
	if got := proxy.Boundaries(slices.Collect(slices.Chunk(stream, 1))...); !slices.Equal(got, want) {
		t.Errorf("got frames that end at %v, want %v", got, want)
	}
}

// FuzzFramesDoNotDependOnChunks: however a stream is cut, its frames end at the
// same places.
func FuzzFramesDoNotDependOnChunks(f *testing.F) {
	f.Add([]byte("\x82\x7e\x00\x03abc\x88\x00"), uint8(1))
	f.Add(frameOf(300, 64, true), uint8(7))
	f.Fuzz(func(t *testing.T, stream []byte, size uint8) {
		single := proxy.Boundaries(slices.Collect(slices.Chunk(stream, 1))...)
		n := 0
		for chunk := range slices.Chunk(stream, int(size)+1) {
			n += len(chunk)
			at := len(proxy.Boundaries(stream[:n])) == 1
			if at != slices.Contains(single, n) {
				t.Errorf("after %d bytes: between frames is %v in one piece, and not byte by byte", n, at)
			}
		}
	})
}

func TestCloseFrameIsOfABoundedLength(t *testing.T) {
	t.Parallel()
	frame := proxy.CloseFrame(1008, strings.Repeat("a", 1000))
	if len(frame) != 2+125 || frame[0] != 0x88 || frame[1] != 125 || binary.BigEndian.Uint16(frame[2:]) != 1008 {
		t.Errorf("got % x", frame[:4])
	}
}

// FuzzNoTokenIsLeftInSubprotocols: in whatever letter case and between whatever
// separators it stands.
func FuzzNoTokenIsLeftInSubprotocols(f *testing.F) {
	f.Add("chat, gatehouse.token.abc", "superchat")
	f.Add("GateHouse.Token.x,,\tgatehouse.token.", "gatehouse.token.y chat")
	f.Fuzz(func(t *testing.T, first, second string) {
		tokens, rest := proxy.SplitProtocols([]string{first, second})
		for left := range strings.SplitSeq(rest, ",") {
			if strings.HasPrefix(strings.ToLower(strings.TrimSpace(left)), "gatehouse.token.") {
				t.Errorf("%q is left, beside the tokens %q", rest, tokens)
			}
		}
	})
}
