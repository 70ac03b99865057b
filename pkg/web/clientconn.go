package web

import (
	"net"
	"time"
)

// clientListener accepts clientConns.
type clientListener struct {
	net.Listener
	strictTransport string // see Server
}

// Accept implements net.Listener.
func (l clientListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &clientConn{Conn: c, errors: rawErrors{strictTransport: l.strictTransport}}, nil
}

// clientConn is the connection of a client, by TCP or TLS. With TLS the first read does the
// handshake, so the timeout for headers limits it.
type clientConn struct {
	net.Conn
	errors rawErrors
	pace   pace
}

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.pace.got(c.Conn, n)
	return n, err
}

// Write implements net.Conn.
func (c *clientConn) Write(p []byte) (int, error) {
	for written := 0; ; {
		piece := p[written:min(len(p), written+stretch)]
		n, err := c.errors.write(c.Conn, piece)
		c.pace.took(c.Conn, n)
		if written += n; err != nil || written == len(p) {
			return written, err
		}
	}
}

// SetDeadline implements net.Conn.
func (c *clientConn) SetDeadline(t time.Time) error { return c.pace.set(c.Conn, t, true, true) }

// SetReadDeadline implements net.Conn.
func (c *clientConn) SetReadDeadline(t time.Time) error { return c.pace.set(c.Conn, t, true, false) }

// SetWriteDeadline implements net.Conn.
func (c *clientConn) SetWriteDeadline(t time.Time) error { return c.pace.set(c.Conn, t, false, true) }

// CloseWrite ends what is sent. net/http does so before it closes a connection, so that the client
// gets the response first.
func (c *clientConn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
