package web_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/web"
)

// TestREL105Streaming: in the metrics, a request ends when its response becomes a stream. The log
// has its whole duration.
func TestREL105Streaming(t *testing.T) {
	t.Parallel()
	var logs bytes.Buffer
	metrics := prometheus.NewRegistry()
	o := web.Options{Log: service.NewLogger(&logs, "test", service.Common{LogFormat: "json"}), Metrics: metrics}
	const lasts = 300 * time.Millisecond
	inFlight := -1.0
	web.Edge(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		web.SetStreaming(r.Context())
		web.SetStreaming(r.Context()) // The second call has no effect.
		inFlight = valueOf(t, metrics, "headgate_http_requests_in_flight")
		<-time.After(lasts)
		w.WriteHeader(http.StatusOK)
	}), o).ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", http.NoBody))
	if after := valueOf(t, metrics, "headgate_http_requests_in_flight"); inFlight != 0 || after != 0 {
		t.Errorf("%v requests in flight while the stream lasts, %v after it", inFlight, after)
	}
	if took := valueOf(t, metrics, "headgate_http_request_duration_seconds"); took >= lasts.Seconds() {
		t.Errorf("the request took %v s", took)
	}
	_, took, _ := strings.Cut(logs.String(), `"duration_us":`)
	if took, _, _ = strings.Cut(took, ","); len(took) < len("300000") {
		t.Errorf("the log has the duration %s: %s", took, &logs)
	}
}

func valueOf(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			m := family.GetMetric()[0]
			return m.GetGauge().GetValue() + m.GetHistogram().GetSampleSum()
		}
	}
	return 0
}

// TestREL104DrainHook: the server ends what lasts for long when it accepts no more requests, and
// waits for it.
func TestREL104DrainHook(t *testing.T) {
	t.Parallel()
	fault := errors.New("not drained")
	for _, result := range []error{nil, fault} {
		end, ended := make(chan struct{}), make(chan struct{})
		server := web.NewServer(web.Listener{}, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			w.WriteHeader(http.StatusOK)
			_ = http.NewResponseController(w).Flush()
			<-end
		}), testkit.Log(t))
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		address := "http://" + listener.Addr().String()
		server.Drain = func(ctx context.Context) error {
			testkit.Eventually(t, func() error {
				if c, err := net.Dial("tcp", listener.Addr().String()); err == nil {
					c.Close()
					return errors.New("connections are accepted")
				}
				return nil
			})
			close(end)
			<-ended
			return result
		}
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- server.Serve(ctx, listener) }()
		res, err := http.Get(address)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if err := <-served; !errors.Is(err, result) {
			t.Errorf("serve = %v, want %v", err, result)
		}
		res.Body.Close()
	}
}
