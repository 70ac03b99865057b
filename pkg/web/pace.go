package web

import (
	"net"
	"sync"
	"time"
)

const (
	// slowest is how many bytes of a long response a client must take in a second, on average.
	slowest = 16 << 10
	// stretch is how many bytes pass between two extensions of a deadline.
	stretch = 64 << 10
)

// pace extends the deadline of a response by the time that a slow client may take for what it has
// taken. The WriteTimeout of http.Server is for the whole response, however long that is; a timeout
// that is long enough for an export on a slow line would let a client that takes nothing keep the
// connection for as long. What the kernel buffers counts as taken.
type pace struct {
	mu       sync.Mutex
	deadline time.Time // as it was set; zero for none
	sent     int64     // since then
	extended int64     // for how much of that the deadline was extended
	off      bool
}

// write writes b in pieces, so that one long write can be extended as well.
func (p *pace) write(c net.Conn, replaced *rawErrors, b []byte) (written int, err error) {
	for {
		n, err := replaced.write(c, b[written:min(len(b), written+stretch)])
		p.took(c, n)
		if written += n; err != nil || written == len(b) {
			return written, err
		}
	}
}

func (p *pace) took(c net.Conn, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += int64(n)
	if p.off || p.deadline.IsZero() || p.sent-p.extended < stretch {
		return
	}
	p.extended = p.sent
	_ = c.SetWriteDeadline(p.deadline.Add(time.Duration(p.sent) * time.Second / slowest)) // If this fails, so will the write.
}

func (p *pace) setWriteDeadline(c net.Conn, t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deadline, p.sent, p.extended = t, 0, 0
	return c.SetWriteDeadline(t)
}

// stop is for a connection that switches protocols: its deadlines are exact.
func (p *pace) stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.off = true
}
