package web_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
)

// With a certificate the listener speaks TLS only, to clients that trust its authority. A new
// certificate in the files is used without a restart; one that cannot be loaded is not.
func TestSEC129TLSListener(t *testing.T) {
	t.Parallel()
	authority, dir := testkit.NewAuthority(t), t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.pem"), filepath.Join(dir, "tls.key")
	authority.Issue(certFile, keyFile)
	cfg := web.Listener{TLSCertFile: certFile, TLSKeyFile: keyFile}
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.TLS == nil {
				t.Error("the handler does not know that the request came over TLS")
			}
			fmt.Fprint(w, "hello")
		})
		served <- web.NewServer(cfg, handler, testkit.Log(t)).Serve(ctx, listener)
	}()
	defer func() {
		stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}()
	addr := listener.Addr().String()
	// say sends one request and returns the response and the certificate.
	say := func(request string, config *tls.Config) (response, serial string, err error) {
		config = config.Clone()
		config.ServerName = "localhost"
		conn, err := (&tls.Dialer{Config: config}).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			return "", "", err
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, request); err != nil {
			return "", "", err
		}
		data, err := io.ReadAll(conn)
		return string(data), conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), err
	}
	const request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	response, first, err := say(request, authority.Client())
	if err != nil || !strings.HasPrefix(response, "HTTP/1.1 200") || !strings.HasSuffix(response, "hello") {
		t.Fatalf("response = %q, %v", response, err)
	}
	if response, _, err := say("GET / HTTP/1.1\r\n\r\n", authority.Client()); err != nil || !strings.Contains(response, `"code":"malformed_request"`) {
		t.Errorf("response to a malformed request = %q, %v", response, err)
	}
	var unknown *tls.CertificateVerificationError
	if _, _, err := say(request, testkit.NewAuthority(t).Client()); !errors.As(err, &unknown) {
		t.Errorf("a client of another authority gets %v", err)
	}
	if conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr); err != nil {
		t.Error(err)
	} else {
		fmt.Fprint(conn, request)
		if line, _ := bufio.NewReader(conn).ReadString('\n'); strings.Contains(line, "200") {
			t.Errorf("a plain request gets %q", line)
		}
		conn.Close()
	}

	authority.Issue(certFile, filepath.Join(dir, "other.key")) // The key does not fit yet.
	time.AfterFunc(1500*time.Millisecond, func() { authority.Issue(certFile, keyFile) })
	testkit.Eventually(t, func() error {
		_, serial, err := say(request, authority.Client())
		if err != nil {
			t.Fatalf("while the certificate is replaced: %v", err)
		}
		if serial == first {
			return errors.New("the first certificate is still in use")
		}
		return nil
	})
	if (web.Listener{TLSCertFile: certFile}).Validate() == nil {
		t.Error("a certificate without a key is accepted")
	}
}
