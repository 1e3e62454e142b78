package proxy

// IsHost is for tests.
var IsHost = isHost

// AcceptKey is for backends of the tests that answer handshakes.
var AcceptKey = acceptKey
