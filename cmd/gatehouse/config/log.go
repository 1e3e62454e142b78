package config

// Log says what is logged, and how.
type Log struct {
	// Level is debug, info, warn or error.
	Level string `yaml:"level"`
	// Modules are levels of single modules, in the place of Level.
	Modules map[string]string `yaml:"modules"`
	// Sample is the share of the requests that were allowed and went well which
	// have a line, from 0 to 1. All others have one.
	Sample float64 `yaml:"sample"`
	// Buffer is how much may wait to be written.
	Buffer Bytes     `yaml:"buffer"`
	Format LogFormat `yaml:"format"`
}

// LogFormat is how a log line is written.
type LogFormat string

// The two formats.
const (
	LogJSON    LogFormat = "json"
	LogConsole LogFormat = "console"
)

// The modules of the log, each of which has a level.
const (
	LogAccess    = "access"    // a line a request
	LogAdmin     = "admin"     // /admin/v1
	LogAudit     = "audit"     // management actions
	LogConfig    = "config"    // loading the configuration
	LogDashboard = "dashboard" // signing in
	LogLimits    = "limits"    // rates and plans
	LogServer    = "server"    // starting, stopping, connections
	LogStore     = "store"     // Redis, or the embedded store
	LogTracing   = "tracing"   // the export of spans
	LogUpstream  = "upstream"  // targets of upstreams
)

// LogModules are all modules, in alphabetical order.
func LogModules() []string {
	return []string{
		LogAccess, LogAdmin, LogAudit, LogConfig, LogDashboard, LogLimits, LogServer, LogStore, LogTracing, LogUpstream,
	}
}

// LogLevels are what a level can be, the most talkative first.
func LogLevels() []string { return []string{"debug", "info", "warn", "error"} }

// Levels is the level of every module.
func (l Log) Levels() map[string]string {
	levels := make(map[string]string, len(LogModules()))
	for _, module := range LogModules() {
		levels[module] = l.Level
		if own, ok := l.Modules[module]; ok {
			levels[module] = own
		}
	}
	return levels
}
