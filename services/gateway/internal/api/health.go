package api

import (
	"net/http"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

type health struct {
	Status   string            `json:"status"`
	Version  string            `json:"version"`
	Services map[string]string `json:"services"`
}

// healthOf responds with 200 even if a service is down, because the gateway itself is
// healthy. It reports the results of the last probes.
func healthOf(version string, services map[string]*upstream.Service) web.Handler {
	return func(w http.ResponseWriter, _ *http.Request) error {
		answer := health{Status: "ok", Version: version, Services: map[string]string{}}
		for name, service := range services {
			answer.Services[name] = "up"
			if !service.Up() {
				answer.Services[name], answer.Status = "down", "degraded"
			}
		}
		return web.OK(w, http.StatusOK, answer)
	}
}
