package testkit

import (
	"io"
	"net"
	"testing"
)

// Forward forwards connections from the socket at path to a server, until the test
// ends.
func Forward(t testing.TB, path, server string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return // The test has ended.
			}
			upstream, err := net.Dial("tcp", server) //nolint:noctx // The test ends it.
			if err != nil {
				_ = client.Close()
				continue
			}
			for from, to := range map[net.Conn]net.Conn{client: upstream, upstream: client} {
				go func() {
					_, _ = io.Copy(to, from)
					_ = to.Close()
				}()
			}
		}
	}()
}
