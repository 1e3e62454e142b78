package proxy

import "encoding/binary"

// frames follows the bytes of one direction of a WebSocket, to know where one
// frame ends and the next may begin (RFC 6455 §5.2). Its zero value stands at
// the beginning of a frame.
type frames struct {
	head    [14]byte
	have    int    // bytes of head
	payload uint64 // bytes that are left of the frame
}

// pass takes the next bytes of the stream.
func (f *frames) pass(b []byte) {
	for len(b) > 0 {
		if f.payload > 0 {
			skipped := min(f.payload, uint64(len(b)))
			f.payload -= skipped
			b = b[skipped:]
			continue
		}
		f.head[f.have] = b[0]
		f.have++
		b = b[1:]
		if length, whole := f.parsed(); whole {
			f.payload, f.have = length, 0
		}
	}
}

// between reports whether the stream stands between two frames.
func (f *frames) between() bool { return f.have == 0 && f.payload == 0 }

// parsed returns the length of the payload when the head is whole.
func (f *frames) parsed() (length uint64, whole bool) {
	if f.have < 2 {
		return 0, false
	}
	need := 2
	length = uint64(f.head[1] & 0x7f)
	switch length {
	case 126:
		need += 2
	case 127:
		need += 8
	}
	if f.head[1]&0x80 != 0 {
		need += 4 // the masking key
	}
	if f.have < need {
		return 0, false
	}
	switch length {
	case 126:
		length = uint64(binary.BigEndian.Uint16(f.head[2:]))
	case 127:
		length = binary.BigEndian.Uint64(f.head[2:])
	}
	return length, true
}

// maxCloseReason is how long the reason of a close frame may be.
const maxCloseReason = 123

// closeFrame is a server's close frame (RFC 6455 §5.5.1).
func closeFrame(code uint16, reason string) []byte {
	reason = reason[:min(len(reason), maxCloseReason)]
	frame := []byte{0x88, byte(2 + len(reason)), byte(code >> 8), byte(code)} // #nosec G115 -- at most 125
	return append(frame, reason...)
}
