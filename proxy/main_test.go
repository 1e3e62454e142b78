package proxy_test

import (
	"io"
	"log"
	"os"
	"testing"
)

// TestMain silences net/http, which writes what broken backends send to the
// log of the process, as the gatehouse command does.
func TestMain(m *testing.M) {
	log.SetOutput(io.Discard)
	os.Exit(m.Run())
}
