package web

import (
	"net"
	"sync"
	"time"
)

// stretch is how much a client must send or take, in bytes, within each timeout of the server. It
// is more than most requests and responses have, which so have one timeout in all.
const stretch = 64 << 10

// pace renews the deadlines of a connection after each stretch of bytes that has passed. The
// timeouts of http.Server are for the whole of a request or response, however long it is: one that
// is long enough for a download on a slow line would let a client that takes nothing keep the
// connection for as long.
type pace struct {
	mu             sync.Mutex
	read, write    time.Duration // what is left when a deadline is set; not positive for none
	received, sent int           // since a deadline was set or renewed
}

// set is for all deadlines of the connection, which it sets itself.
func (p *pace) set(c net.Conn, t time.Time, read, write bool) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var left time.Duration
	if !t.IsZero() {
		left = time.Until(t)
	}
	switch {
	case read && write:
		p.read, p.received, p.write, p.sent = left, 0, left, 0
		return c.SetDeadline(t)
	case read:
		p.read, p.received = left, 0
		return c.SetReadDeadline(t)
	default:
		p.write, p.sent = left, 0
		return c.SetWriteDeadline(t)
	}
}

// got renews the deadlines if the client has sent a stretch: that for the response has begun, too.
func (p *pace) got(c net.Conn, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.received += n; p.received < stretch {
		return
	}
	p.received = 0
	if p.read > 0 {
		_ = c.SetReadDeadline(time.Now().Add(p.read)) // If this fails, so does the next read.
	}
	p.renewWrite(c)
}

// took renews the deadline if the client has taken a stretch.
func (p *pace) took(c net.Conn, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.sent += n; p.sent < stretch {
		return
	}
	p.renewWrite(c)
}

func (p *pace) renewWrite(c net.Conn) {
	p.sent = 0
	if p.write > 0 {
		_ = c.SetWriteDeadline(time.Now().Add(p.write)) // If this fails, so does the next write.
	}
}
