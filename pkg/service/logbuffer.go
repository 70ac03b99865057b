package service

import (
	"io"
	"sync"
	"time"
)

const (
	flushInterval = 100 * time.Millisecond
	flushSize     = 32 << 10
)

// logBuffer writes to w after flushInterval or flushSize bytes, whichever comes
// first: the access log of a busy service would cost a system call for each line
// otherwise. It is safe for concurrent use.
type logBuffer struct {
	w io.Writer

	mu       sync.Mutex
	buffered []byte
	timer    *time.Timer // runs while bytes are buffered
}

func newLogBuffer(w io.Writer) *logBuffer {
	b := &logBuffer{w: w, buffered: make([]byte, 0, flushSize+4<<10)}
	b.timer = time.AfterFunc(time.Hour, func() { _ = b.flush() }) // A failing log has nowhere to be reported.
	b.timer.Stop()
	return b
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.buffered) == 0 {
		b.timer.Reset(flushInterval)
	}
	b.buffered = append(b.buffered, p...)
	if len(b.buffered) >= flushSize {
		return len(p), b.write()
	}
	return len(p), nil
}

// flush writes the buffered bytes.
func (b *logBuffer) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.write()
}

func (b *logBuffer) write() error {
	b.timer.Stop()
	_, err := b.w.Write(b.buffered)
	b.buffered = b.buffered[:0]
	return err
}
