package web_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/web"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	ready := error(nil)
	next := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) })
	handler := web.WithHealth(next, func(context.Context) error { return ready })
	for _, tc := range []struct {
		method, path, code string
		fault              error
		status             int
	}{
		{"GET", "/livez", "", nil, 200},
		{"HEAD", "/readyz", "", nil, 200},
		{"GET", "/readyz", "", nil, 200},
		{"GET", "/livez", "", errors.New("db-7 is away"), 200},
		{"GET", "/readyz", "not_ready", errors.New("db-7 is away"), 503},
		{"POST", "/readyz", "method_not_allowed", nil, 405},
		{"GET", "/readyz/", "", nil, 418},
	} {
		ready = tc.fault
		r := httptest.NewRequestWithContext(t.Context(), tc.method, tc.path, http.NoBody)
		r.Header.Set("X-Request-Id", "id-1")
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, r)
		if w.Code != tc.status {
			t.Errorf("%s %s = %d %s, want %d", tc.method, tc.path, w.Code, w.Body, tc.status)
		}
		if w.Code == http.StatusTeapot {
			continue
		}
		var got struct{ Code string }
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Code != tc.code || strings.Contains(w.Body.String(), "db-7") {
			t.Errorf("%s %s = %s, want %s, %v", tc.method, tc.path, w.Body, tc.code, err)
		}
		h := w.Header()
		if h.Get("X-Request-Id") != "id-1" || h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s %s: %v", tc.method, tc.path, h)
		}
		if (h.Get("Retry-After") != "") != (w.Code == 503) || (h.Get("Allow") != "") != (w.Code == 405) {
			t.Errorf("%s %s: %v", tc.method, tc.path, h)
		}
	}
}
