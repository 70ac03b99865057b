package web

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
)

// certificateCheck is how often a handshake looks whether the files have changed.
const certificateCheck = time.Second

// certificate is the certificate of a listener. It is loaded again when its files have
// changed, so that it can be renewed without a restart. It is safe for concurrent use.
type certificate struct {
	certFile, keyFile string
	log               *slog.Logger

	mu      sync.Mutex
	current *tls.Certificate
	version string // of the files that were tried last
	checked time.Time
}

// tlsConfig returns the configuration of an HTTPS server, which speaks HTTP/1.1.
func (l Listener) tlsConfig(log *slog.Logger) (*tls.Config, error) {
	c := &certificate{certFile: l.TLSCertFile, keyFile: l.TLSKeyFile, log: log}
	pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	if err != nil {
		return nil, fmt.Errorf("TLS_CERT_FILE, TLS_KEY_FILE: %w", err)
	}
	c.current, c.version = &pair, c.fileVersion()
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.get}, nil
}

// get returns the certificate for a handshake. If the new files cannot be loaded, it stays
// the old one: they may be half written.
func (c *certificate) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.checked) >= certificateCheck {
		c.checked = now
		if version := c.fileVersion(); version != c.version {
			pair, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
			if err != nil {
				c.log.WarnContext(hello.Context(), "could not load the new certificate; using the old one", "error", err.Error())
				return c.current, nil
			}
			c.current, c.version = &pair, version
			c.log.InfoContext(hello.Context(), "certificate loaded", "file", c.certFile)
		}
	}
	return c.current, nil
}

// fileVersion changes when one of the files does.
func (c *certificate) fileVersion() string {
	var version strings.Builder
	for _, name := range []string{c.certFile, c.keyFile} {
		if info, err := os.Stat(name); err == nil {
			fmt.Fprintln(&version, info.ModTime().UnixNano(), info.Size())
		}
	}
	return version.String()
}
