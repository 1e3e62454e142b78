package main

import (
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatehouse/cmd/gatehouse/config"
	"gatehouse/policy"
)

// logger has a log for each module, whose level can be changed at any time. It
// writes in the background.
type logger struct {
	modules map[string]*moduleLog
	// changes is where changes of levels are logged, whatever the levels are.
	changes *zap.Logger
	buffer  *logBuffer
}

type moduleLog struct {
	*zap.Logger
	level zap.AtomicLevel
}

// newLogger makes a logger that stop ends.
func newLogger(c config.Log, out io.Writer) (*logger, error) {
	form := zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", MessageKey: "message", NameKey: "logger",
		EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeLevel: zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder, LineEnding: zapcore.DefaultLineEnding,
	}
	encoder := zapcore.NewJSONEncoder(form)
	if c.Format == config.LogConsole {
		encoder = zapcore.NewConsoleEncoder(form)
	}
	l := &logger{modules: map[string]*moduleLog{}}
	l.buffer = newLogBuffer(out, int(c.Buffer), func(lost uint64) {
		l.changes.Warn("lines of the log were dropped: its output was too slow, or failed", zap.Uint64("gatehouse.lines", lost))
	})
	all := logSink{l.buffer, l.buffer.most}
	l.changes = zap.New(cleanCore{zapcore.NewCore(encoder, all, zap.DebugLevel)}).Named("log")
	for module, level := range c.Levels() {
		atomic, err := zap.ParseAtomicLevel(level)
		if err != nil {
			return nil, fmt.Errorf("log: %w", err)
		}
		sink := all
		if module == config.LogAccess {
			sink.most = sink.most / 4 * 3 // requests leave room for what operators must see
		}
		l.modules[module] = &moduleLog{zap.New(cleanCore{zapcore.NewCore(encoder, sink, atomic)}).Named(module), atomic}
	}
	return l, nil
}

// of is the log of a module.
func (l *logger) of(module string) *zap.Logger { return l.modules[module].Logger }

// stop flushes, and says on the terminal what could not be.
func (l *logger) stop(t *terminal) {
	if err := l.buffer.stop(); err != nil {
		t.complain(err)
	}
}

// count has the registry know how many lines were dropped.
func (l *logger) count(registry prometheus.Registerer) {
	registry.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
		Name: "gatehouse_log_dropped_total",
		Help: "Lines of the log that were dropped because its output was too slow or failed.",
	}, func() float64 { return float64(l.buffer.dropped.Load()) }))
}

// Levels is the level of each module.
func (l *logger) Levels() map[string]string {
	levels := make(map[string]string, len(l.modules))
	for name, m := range l.modules {
		levels[name] = m.level.Level().String()
	}
	return levels
}

// set gives modules other levels, all of which exist, and logs that with what is
// known of who did it.
func (l *logger) set(levels map[string]string, by ...zap.Field) {
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(levels)) {
		m, known := l.modules[name]
		level, err := zapcore.ParseLevel(levels[name])
		if !known || err != nil {
			continue
		}
		if before := m.level.Level(); level != before {
			m.level.SetLevel(level)
			changed = append(changed, fmt.Sprintf("%s: %s instead of %s", name, level, before))
		}
	}
	if changed != nil {
		l.changes.Info("log levels were changed", append(by, zap.Strings("gatehouse.levels", changed))...)
	}
}

// SetLevels is for operators.
func (l *logger) SetLevels(by policy.Caller, levels map[string]string) {
	address := ""
	if by.Client.IsValid() {
		address = by.Client.String()
	}
	l.set(levels, zap.String("gatehouse.actor_kind", string(by.Person.Kind)), zap.String("client.address", address),
		zap.String("gatehouse.request_id", by.RequestID))
}
