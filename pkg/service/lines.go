package service

import (
	"io"
	"sync"
	"time"
)

const (
	linesWait = 100 * time.Millisecond
	linesMax  = 32 << 10
)

// lines writes what it gets a moment later, many lines at a time: the access log
// of a busy service costs a system call for each line otherwise. It is safe for
// concurrent use.
type lines struct {
	w io.Writer

	mu      sync.Mutex
	waiting []byte
	timer   *time.Timer // runs while lines wait
}

func newLines(w io.Writer) *lines {
	l := &lines{w: w, waiting: make([]byte, 0, linesMax+4<<10)}
	l.timer = time.AfterFunc(time.Hour, func() { _ = l.flush() }) // There is no other place to tell.
	l.timer.Stop()
	return l
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiting) == 0 {
		l.timer.Reset(linesWait)
	}
	l.waiting = append(l.waiting, p...)
	if len(l.waiting) >= linesMax {
		return len(p), l.write()
	}
	return len(p), nil
}

// flush writes what waits.
func (l *lines) flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.write()
}

func (l *lines) write() error {
	l.timer.Stop()
	_, err := l.w.Write(l.waiting)
	l.waiting = l.waiting[:0]
	return err
}
