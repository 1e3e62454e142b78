package proxy

// IsHost is for tests.
var IsHost = isHost
