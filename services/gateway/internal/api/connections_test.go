package api_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/api"
)

// TestSEC45Connections: a client with many connections gets no more, and others do.
func TestSEC45Connections(t *testing.T) {
	t.Parallel()
	metrics := prometheus.NewRegistry()
	connections := api.NewConnections(api.ConnectionsConfig{Total: 5, PerNetwork: 3, Log: testkit.Log(t), Metrics: metrics, Now: time.Now})
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }))
	server.Config.ConnState = connections.ConnState
	server.Start()
	t.Cleanup(server.Close)

	from := func(ip string) func() error {
		dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
		client := &http.Client{Transport: &http.Transport{DialContext: dialer.DialContext}}
		t.Cleanup(client.CloseIdleConnections)
		return func() error {
			req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			res, err := client.Do(req)
			if err != nil {
				return err
			}
			defer res.Body.Close()
			_, err = io.Copy(io.Discard, res.Body)
			return err
		}
	}
	first := from("127.0.0.1")
	for i, ask := range []func() error{first, from("127.0.0.1"), from("127.0.0.1")} {
		if err := ask(); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
	}
	if from("127.0.0.1")() == nil {
		t.Error("a fourth connection from the same address works")
	}
	if err := first(); err != nil {
		t.Errorf("a connection from before: %v", err)
	}
	for _, ip := range []string{"127.0.0.2", "127.0.0.3"} {
		if err := from(ip)(); err != nil {
			t.Errorf("from another address: %v", err)
		}
	}
	if from("127.0.0.4")() == nil {
		t.Error("a sixth connection works")
	}
	want := `
# HELP headgate_connections_open Open client connections.
# TYPE headgate_connections_open gauge
headgate_connections_open 5
`
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "headgate_connections_open"); err != nil {
		t.Error(err)
	}
	server.CloseClientConnections()
	testkit.Eventually(t, from("127.0.0.5"))
}
