package service

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// requestsPath answers as /readyz of the public listener does. The healthcheck command
// asks it: other containers wait for the answer before they start.
const requestsPath = "/readyz/requests"

func (s *Service) opsHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", livez)
	mux.HandleFunc("GET /readyz", s.readyz(s.Working))
	mux.HandleFunc("GET "+requestsPath, s.readyz(s.Ready))
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.Metrics, promhttp.HandlerOpts{Registry: s.Metrics}))
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return mux
}

// livez checks no dependency: if one is down, an orchestrator must not kill healthy
// processes.
func livez(w http.ResponseWriter, _ *http.Request) {
	health(w, http.StatusOK, map[string]any{"status": "alive"})
}

// readyz answers 503 with the reason while check fails. Notices are part of either answer.
func (s *Service) readyz(check func(context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
		defer cancel()
		status, body := http.StatusOK, map[string]any{"status": "ready"}
		if err := check(ctx); err != nil {
			status, body = http.StatusServiceUnavailable, map[string]any{"status": "not ready", "reason": err.Error()}
		}
		if notices := s.currentNotices(ctx); notices != nil {
			body["notices"] = notices
		}
		health(w, status, body)
	}
}

func health(w http.ResponseWriter, status int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // It fails only if the client has disconnected.
}
