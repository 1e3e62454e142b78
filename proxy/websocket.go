package proxy

import (
	"crypto/sha1" // #nosec G505 -- RFC 6455 has it, and not as a secret
	"encoding/base64"
	"errors"
	"net/http"
	"strings"

	"golang.org/x/net/http/httpguts"

	"gatehouse/proxy/problem"
)

// errUpgraded: the backend switched to WebSocket, as it was asked to.
var errUpgraded = errors.New("the backend has switched to WebSocket")

// tokenProtocol begins the subprotocol in which a browser's WebSocket, which
// can set no header, may present its token.
const tokenProtocol = "gatehouse.token."

// upgrade reports whether the request opens a WebSocket (RFC 6455 §4.2.1) on a
// route that allows it. A handshake that is not whole is refused. To every other
// upgrade a server may be deaf (RFC 9110 §7.8), and this one is.
func upgrade(r *http.Request, route *Route) (bool, error) {
	h := r.Header
	asked := h["Upgrade"]
	if !route.webSocket || r.ProtoMajor != 1 || len(asked) == 0 || !httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") {
		return false, nil
	}
	if !httpguts.HeaderValuesContainsToken(asked, "websocket") {
		return false, nil
	}
	key := h["Sec-Websocket-Key"]
	version := h["Sec-Websocket-Version"]
	switch {
	case namesHandshake(h["Connection"]):
		return false, badHandshake("its Connection header names a part of it")
	case len(asked) != 1 || !strings.EqualFold(asked[0], "websocket"):
		return false, badHandshake("it asks for more than one protocol")
	case r.Method != http.MethodGet || !r.ProtoAtLeast(1, 1):
		return false, badHandshake("it is not a GET of HTTP/1.1")
	case r.ContentLength != 0 || len(r.TransferEncoding) > 0:
		return false, badHandshake("it has a body")
	case len(version) != 1 || version[0] != "13":
		return false, badHandshake("its Sec-WebSocket-Version is not 13")
	case len(key) != 1 || !isNonce(key[0]):
		return false, badHandshake("its Sec-WebSocket-Key is not 16 bytes in base64")
	}
	return true, nil
}

// namesHandshake reports whether parts of a handshake would end at this hop.
func namesHandshake(lines []string) bool {
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if hasPrefixFolded(strings.Trim(name, " \t"), "sec-websocket-") {
				return true
			}
		}
	}
	return false
}

func badHandshake(fault string) error {
	return problem.New(problem.InvalidRequest, "This WebSocket handshake cannot be accepted: "+fault+".")
}

func isNonce(key string) bool {
	raw, err := base64.StdEncoding.Strict().DecodeString(key)
	return err == nil && len(raw) == 16
}

// acceptKey is the Sec-WebSocket-Accept that belongs to a key (RFC 6455 §4.2.2).
func acceptKey(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // #nosec G401 -- see the import
	return base64.StdEncoding.EncodeToString(sum[:])
}

// accepted reports whether a backend's 101 answers the handshake, and nothing
// else (RFC 6455 §4.1). What it chose must have been offered.
func accepted(answer *http.Response, asked http.Header) bool {
	h := answer.Header
	protocol, extensions := h["Sec-Websocket-Protocol"], h["Sec-Websocket-Extensions"]
	return len(h["Upgrade"]) == 1 && strings.EqualFold(h["Upgrade"][0], "websocket") &&
		httpguts.HeaderValuesContainsToken(h["Connection"], "upgrade") &&
		len(h["Sec-Websocket-Accept"]) == 1 && h["Sec-Websocket-Accept"][0] == acceptKey(asked.Get("Sec-Websocket-Key")) &&
		(len(protocol) == 0 || len(protocol) == 1 && isOffered(asked["Sec-Websocket-Protocol"], protocol[0])) &&
		(len(extensions) == 0 || len(asked["Sec-Websocket-Extensions"]) > 0)
}

func isOffered(lines []string, protocol string) bool {
	for _, line := range lines {
		for offered := range strings.SplitSeq(line, ",") {
			if strings.Trim(offered, " \t") == protocol {
				return true
			}
		}
	}
	return false
}

// splitProtocols takes the tokens out of Sec-WebSocket-Protocol lines, and
// returns them and what is left to be forwarded.
func splitProtocols(lines []string) (tokens []string, rest string) {
	var left []string
	for _, line := range lines {
		for protocol := range strings.SplitSeq(line, ",") {
			protocol = strings.Trim(protocol, " \t")
			if token, is := cutFolded(protocol, tokenProtocol); is {
				tokens = append(tokens, token)
			} else if protocol != "" {
				left = append(left, protocol)
			}
		}
	}
	return tokens, strings.Join(left, ", ")
}

func cutFolded(s, prefix string) (string, bool) {
	if len(s) < len(prefix) || !strings.EqualFold(s[:len(prefix)], prefix) {
		return "", false
	}
	return s[len(prefix):], true
}

// takeProtocolToken takes the tokens out of the subprotocols of a handshake, so
// that they are never forwarded, and shows one as the request's credential where
// that is allowed. One beside a header must be the same; see credentialOf.
func (g *Gateway) takeProtocolToken(x *exchange) error {
	lines := x.r.Header["Sec-Websocket-Protocol"]
	if len(lines) == 0 {
		return nil
	}
	tokens, rest := splitProtocols(lines)
	if len(tokens) == 0 {
		return nil
	}
	if rest == "" {
		delete(x.r.Header, "Sec-Websocket-Protocol")
	} else {
		x.r.Header["Sec-Websocket-Protocol"] = []string{rest}
	}
	switch {
	case !g.o.ProtocolTokens || !x.upgrade:
		return nil
	case len(tokens) > 1:
		return ambiguousCredentials("there is more than one gatehouse.token subprotocol")
	}
	h := x.r.Header
	if own, given := h["Api-Token"]; given && (len(own) != 1 || own[0] != tokens[0]) {
		return ambiguousCredentials("api-token and the gatehouse.token subprotocol say different things")
	}
	h["Api-Token"] = tokens // credentialOf compares it with Authorization
	return nil
}

// stripWebSocket takes the headers of a handshake from a request that is none,
// and those that only look like them from one that is: a token may stand in
// them.
func stripWebSocket(h http.Header, upgrade bool) {
	for name := range h {
		ours := upgrade && strings.HasPrefix(name, "Sec-Websocket-")
		if hasPrefixFolded(name, "sec-websocket-") && !ours {
			delete(h, name)
		}
	}
}
