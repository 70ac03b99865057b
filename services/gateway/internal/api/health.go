package api

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/web"
)

// Health knows which services are up. It asks in the background, so that
// /health is cheap however often it is called.
type Health struct {
	version  string
	services map[string]*url.URL
	client   *http.Client

	mu sync.Mutex
	up map[string]bool
}

const (
	probeEvery   = 2 * time.Second
	probeTimeout = time.Second
)

// NewHealth returns the health of services, by name.
func NewHealth(version string, services map[string]*url.URL) *Health {
	return &Health{
		version: version, services: services, up: map[string]bool{},
		client: &http.Client{Timeout: probeTimeout},
	}
}

// Run implements service.Runner: it asks until ctx ends.
func (h *Health) Run(ctx context.Context) error {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		var wg sync.WaitGroup
		for name, address := range h.services {
			wg.Go(func() {
				up := h.probe(ctx, address) == nil
				h.mu.Lock()
				defer h.mu.Unlock()
				h.up[name] = up
			})
		}
		wg.Wait()
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (h *Health) probe(ctx context.Context, address *url.URL) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address.JoinPath("readyz").String(), http.NoBody)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	res, err := h.client.Do(req)
	if err != nil {
		return fmt.Errorf("ask for readiness: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("ask for readiness: %s", res.Status)
	}
	return nil
}

type healthAnswer struct {
	Status   string            `json:"status"`
	Version  string            `json:"version"`
	Services map[string]string `json:"services"`
}

// handle answers 200 whatever a service does: the gateway itself is healthy.
func (h *Health) handle(w http.ResponseWriter, _ *http.Request) error {
	h.mu.Lock()
	up := maps.Clone(h.up)
	h.mu.Unlock()
	answer := healthAnswer{Status: "ok", Version: h.version, Services: map[string]string{}}
	for name := range h.services {
		answer.Services[name] = "up"
		if !up[name] {
			answer.Services[name], answer.Status = "down", "degraded"
		}
	}
	return web.OK(w, http.StatusOK, answer)
}
