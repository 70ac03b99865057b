package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/web"
)

// TestInterruptedResponses: a service that interrupts its response causes a warning, a client
// that goes away does not.
func TestInterruptedResponses(t *testing.T) {
	t.Parallel()
	for level, gone := range map[string]bool{"WARN": false, "DEBUG": true} {
		var logs bytes.Buffer
		edge := web.Edge(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			ctx, cancel := context.WithCancel(r.Context())
			defer cancel()
			if gone {
				cancel()
			}
			body := io.MultiReader(strings.NewReader("beginning"), iotest.ErrReader(errors.New("connection reset")))
			copyResponse(w, r.WithContext(ctx), &http.Response{StatusCode: http.StatusOK, ContentLength: -1, Body: io.NopCloser(body)})
		}), web.Options{Log: slog.New(slog.NewTextHandler(&logs, &slog.HandlerOptions{Level: slog.LevelDebug})), Metrics: prometheus.NewRegistry()})
		func() {
			defer func() {
				if fault := recover(); fault != http.ErrAbortHandler { //nolint:errorlint // The value itself is the signal.
					t.Errorf("panic %v", fault)
				}
			}()
			edge.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", http.NoBody))
		}()
		if want := "level=" + level + ` msg="response interrupted" error="connection reset"`; !strings.Contains(logs.String(), want) {
			t.Errorf("client gone: %t, logs: %s", gone, logs.String())
		}
	}
}
