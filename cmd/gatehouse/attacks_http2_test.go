package main_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse/proxy/attacktest"
)

// frames is an HTTP/2 connection that sends what it is told to.
type frames struct {
	*http2.Framer
	conn  *tls.Conn
	block bytes.Buffer
	hpack *hpack.Encoder
	// settings are what the gateway says that it takes.
	settings map[http2.SettingID]uint32
}

// dialFrames opens a connection and shakes hands.
func (g *gateway) dialFrames(t *testing.T, roots *x509.CertPool) *frames {
	t.Helper()
	conn, err := tls.Dial("tcp", g.addr, &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: roots, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // the gateway may have closed it
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	f := &frames{conn: conn, Framer: http2.NewFramer(conn, conn), settings: map[http2.SettingID]uint32{}} //nolint:exhaustive // filled by what comes
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	f.AllowIllegalWrites = true
	f.hpack = hpack.NewEncoder(&f.block)
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// headers sends a block in as many frames as it takes. The gateway may have
// closed the connection already.
func (f *frames) headers(stream uint32, fields []attacktest.Field, end bool) {
	f.block.Reset()
	for _, field := range fields {
		_ = f.hpack.WriteField(hpack.HeaderField{Name: field.Name, Value: field.Value}) // into memory
	}
	const most = 16 << 10
	block := f.block.Bytes()
	first := block[:min(len(block), most)]
	_ = f.WriteHeaders(http2.HeadersFrameParam{ // see above
		StreamID: stream, BlockFragment: first, EndStream: end, EndHeaders: len(first) == len(block),
	})
	for rest := block[len(first):]; len(rest) > 0; {
		part := rest[:min(len(rest), most)]
		rest = rest[len(part):]
		_ = f.WriteContinuation(stream, len(rest) == 0, part) // see above
	}
}

// answer reads the answer on the stream: its status and code, or "" for none.
func (f *frames) answer(stream uint32) (said string, alive bool) {
	status, contentType := 0, ""
	var body bytes.Buffer
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return "", false
		}
		ended := false
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = frame.ForeachSetting(func(s http2.Setting) error {
					f.settings[s.ID] = s.Val
					return nil
				})
				_ = f.WriteSettingsAck() // the next read says it
			}
		case *http2.MetaHeadersFrame:
			if frame.StreamID != stream {
				continue
			}
			for _, field := range frame.Fields {
				switch field.Name {
				case ":status":
					status, _ = strconv.Atoi(field.Value)
				case "content-type":
					contentType = field.Value
				}
			}
			ended = frame.StreamEnded() && status >= 200
		case *http2.DataFrame:
			body.Write(frame.Data())
			ended = frame.StreamID == stream && frame.StreamEnded()
		case *http2.RSTStreamFrame:
			if frame.StreamID == stream {
				return "", true
			}
		case *http2.GoAwayFrame:
			return "", false
		}
		if ended {
			return saidBy(status, contentType, body.Bytes()), true
		}
	}
}

func (d *arena) sendFrames(t *testing.T, a attacktest.Attack, roots *x509.CertPool) {
	t.Helper()
	before := d.counts()
	f := d.dialFrames(t, roots)
	f.headers(1, d.fields(a.Fields), a.Data == "" && a.Trailers == nil)
	if a.Data != "" {
		_ = f.WriteData(1, a.Trailers == nil, []byte(d.words.Replace(a.Data))) // the answer says it
	}
	if a.Trailers != nil {
		f.headers(1, d.fields(a.Trailers), true)
	}
	said, alive := f.answer(1)
	var got []string
	if said != "" {
		got = []string{said}
	}
	compareAnswers(t, a.Answers, got)
	d.checkSeen(t, a, before)
	if !alive {
		return
	}
	before = d.counts()
	f.headers(3, d.fields(asking("/serp/v1/probe", "{token}")), true)
	if said, _ := f.answer(3); said != fmt.Sprint(200) {
		t.Errorf("behind it, a good request got %q", said)
	}
	d.checkSeen(t, attacktest.Attack{Seen: []string{"GET /serp/v1/probe"}}, before)
}

func (d *arena) fields(fields []attacktest.Field) []attacktest.Field {
	var out []attacktest.Field
	for _, field := range fields {
		out = append(out, attacktest.Field{Name: field.Name, Value: d.words.Replace(field.Value)})
	}
	return out
}

// asking is a good request.
func asking(path, token string) []attacktest.Field {
	return []attacktest.Field{
		{Name: ":method", Value: "GET"},
		{Name: ":scheme", Value: "https"},
		{Name: ":authority", Value: "api.example.com"},
		{Name: ":path", Value: path},
		{Name: "api-token", Value: token},
	}
}
