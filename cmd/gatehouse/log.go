package main

import (
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"gatehouse/cmd/gatehouse/config"
)

// logger is a logger whose level can be changed.
type logger struct {
	*zap.Logger
	level zap.AtomicLevel
}

// newLogger makes the logger, which writes in the background, and what
// flushes it.
func newLogger(c config.Log, out io.Writer) (log *logger, flush func(), err error) {
	level, err := zap.ParseAtomicLevel(c.Level)
	if err != nil {
		return nil, nil, fmt.Errorf("log: %w", err)
	}
	form := zapcore.EncoderConfig{
		TimeKey: "time", LevelKey: "level", MessageKey: "message", NameKey: "logger",
		EncodeTime: zapcore.RFC3339NanoTimeEncoder, EncodeLevel: zapcore.LowercaseLevelEncoder,
		EncodeDuration: zapcore.StringDurationEncoder, LineEnding: zapcore.DefaultLineEnding,
	}
	encoder := zapcore.NewJSONEncoder(form)
	if c.Format == config.LogConsole {
		encoder = zapcore.NewConsoleEncoder(form)
	}
	buffered := &zapcore.BufferedWriteSyncer{WS: zapcore.AddSync(out), FlushInterval: time.Second}
	log = &logger{zap.New(cleanCore{zapcore.NewCore(encoder, buffered, level)}), level}
	return log, func() { _ = buffered.Stop() }, nil // there is nowhere to say that the log is lost
}
