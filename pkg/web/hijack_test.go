package web_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/web"
)

// TestSwitchedConnections: a connection that switched protocols counts as 101, and its
// request ends with its handler, even if that panics.
func TestSwitchedConnections(t *testing.T) {
	t.Parallel()
	const answer = "HTTP/1.1 101 Switching Protocols\r\n\r\n"
	for _, panics := range []bool{false, true} {
		var logs bytes.Buffer
		metrics := prometheus.NewRegistry()
		o := web.Options{Log: service.NewLogger(&logs, "test", service.Common{LogFormat: "json"}), Metrics: metrics}
		edge := web.Edge(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, answer)
			if panics {
				panic("after the switch")
			}
		}), o)
		done := make(chan struct{})
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(done)
			edge.ServeHTTP(w, r)
		}))
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if got, err := io.ReadAll(c); err != nil || string(got) != answer {
			t.Errorf("got %q, %v", got, err)
		}
		<-done
		c.Close()
		server.Close()
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range families {
			if n := family.GetMetric()[0].GetGauge().GetValue(); family.GetName() == "headgate_http_requests_in_flight" && n != 0 {
				t.Errorf("%v requests in flight", n)
			}
		}
		if !strings.Contains(logs.String(), `"status":101`) {
			t.Errorf("logs: %s", logs.String())
		}
		if panics != strings.Contains(logs.String(), "handler panicked after it had responded") {
			t.Errorf("panics: %t, logs: %s", panics, logs.String())
		}
	}
}
