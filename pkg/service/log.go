package service

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"

	"github.com/headgate/headgate/pkg/event"
)

// NewLogger returns a logger that writes JSON lines, or text if cfg says so or w is
// a terminal. It adds the request id and the trace id of the context to each line.
func NewLogger(w io.Writer, name string, cfg Common) *slog.Logger {
	return slog.New(newHandler(w, cfg)).With("service", name)
}

// newBufferedLogger returns a logger like NewLogger's that buffers JSON lines below
// warning, for at most flushInterval. A process calls flush before it exits.
func newBufferedLogger(w io.Writer, name string, cfg Common) (log *slog.Logger, flush func()) {
	if cfg.text(w) {
		return NewLogger(w, name, cfg), func() {}
	}
	out := newLogBuffer(w)
	h := newHandler(out, cfg)
	h.flush = out.flush
	return slog.New(h).With("service", name), func() { _ = out.flush() } // A failing log has nowhere to be reported.
}

func newHandler(w io.Writer, cfg Common) contextHandler {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	options := &slog.HandlerOptions{Level: level}
	if cfg.text(w) {
		return contextHandler{Handler: slog.NewTextHandler(w, options)}
	}
	return contextHandler{Handler: slog.NewJSONHandler(w, options)}
}

func (c Common) text(w io.Writer) bool {
	return c.LogFormat == "text" || c.LogFormat == "auto" && terminal(w)
}

func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

type contextHandler struct {
	slog.Handler

	flush func() error // nil without a buffer
}

// Handle implements slog.Handler.
func (h contextHandler) Handle(ctx context.Context, r slog.Record) error {
	origin := event.OriginFrom(ctx)
	var ids [2]slog.Attr
	attrs := ids[:0]
	if origin.RequestID != "" {
		attrs = append(attrs, slog.String("request_id", origin.RequestID))
	}
	if id := origin.TraceID(); id != "" {
		attrs = append(attrs, slog.String("trace_id", id))
	}
	r.AddAttrs(attrs...)
	err := h.Handler.Handle(ctx, r)
	if h.flush != nil && r.Level >= slog.LevelWarn {
		err = errors.Join(err, h.flush())
	}
	return err
}

func (h contextHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return contextHandler{h.Handler.WithAttrs(attrs), h.flush}
}

func (h contextHandler) WithGroup(name string) slog.Handler {
	return contextHandler{h.Handler.WithGroup(name), h.flush}
}
