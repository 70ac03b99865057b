package main

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/upstream"
)

// Config is the configuration of the gateway.
type Config struct {
	service.Common
	service.Brand
	web.Listener
	bus.Redis
	bus.PublicKeys
	token.Expected
	token.Remote

	TrustedProxies web.Prefixes `envconfig:"TRUSTED_PROXIES" desc:"Networks of the proxies in front of the gateway, as comma-separated CIDRs. Only X-Forwarded-For or Forwarded headers from these are trusted. A proxy that writes one of the two must remove the other, which a client may have sent. None if empty."`

	CORSOrigins api.Origins `envconfig:"CORS_ORIGINS" desc:"Comma-separated origins of the web applications whose scripts may call the gateway from a browser, for example https://app.example.com; https in production, except on localhost. None if empty."`
	CORSHeaders api.Headers `envconfig:"CORS_ALLOWED_HEADERS" default:"traceparent,tracestate,baggage,sentry-trace,x-requested-with" desc:"Comma-separated names of request headers that these scripts may send besides those of the API."`

	PublicBaseURL string `envconfig:"PUBLIC_BASE_URL" desc:"The public URL of the gateway, such as https://id.example.com. If it is https, every response tells browsers to use https only (HSTS). In production it must be https, except on localhost."`

	MaxConnections      int `envconfig:"MAX_CONNECTIONS" default:"10000" desc:"Maximum number of open client connections. Further ones are closed immediately."`
	MaxConnectionsPerIP int `envconfig:"MAX_CONNECTIONS_PER_IP" default:"1000" desc:"Maximum number of open connections per IPv4 address or IPv6 /64, except for TRUSTED_PROXIES."`

	RealtimeConnections        int      `envconfig:"REALTIME_MAX_CONNECTIONS" default:"8000" desc:"Maximum number of open real-time connections (WebSocket or server-sent events). Further ones get 503. Keep it below MAX_CONNECTIONS, which server-sent events count against, too."`
	RealtimeConnectionsPerIP   int      `envconfig:"REALTIME_MAX_CONNECTIONS_PER_IP" default:"1000" desc:"Maximum number of real-time connections per client address (IPv4 address or IPv6 /64). Further ones get 429."`
	RealtimeConnectionsPerUser int      `envconfig:"REALTIME_MAX_CONNECTIONS_PER_USER" default:"20" desc:"Maximum number of real-time connections per signed-in user, such as tabs and devices. Further ones get 429."`
	RequireMFAFor              []string `envconfig:"REQUIRE_MFA_FOR" desc:"Roles, such as admin,auditor, that are of use only in sessions with a second factor: here, that may listen to the channels of real-time events. The same for every service."`

	AuthURL  upstream.Addresses `envconfig:"AUTH_URL" required:"true" desc:"URL of auth-service, for example http://auth-service:8080. Separate several instances by commas."`
	UserURL  upstream.Addresses `envconfig:"USER_URL" required:"true" desc:"URL of user-service, or several."`
	EmailURL upstream.Addresses `envconfig:"EMAIL_URL" required:"true" desc:"URL of email-service, or several."`
	AuditURL upstream.Addresses `envconfig:"AUDIT_URL" required:"true" desc:"URL of audit-service, or several."`

	UpstreamTimeout     time.Duration `envconfig:"UPSTREAM_TIMEOUT" default:"15s" desc:"How long a service may take to begin its response (up to an eighth longer in practice). At most 25s."`
	UpstreamWait        time.Duration `envconfig:"UPSTREAM_WAIT" default:"5s" desc:"How long requests wait for a service that accepts no connections, for example because it is being replaced, counted from when the last one of its addresses became unreachable. Later requests get 503 immediately. At most 25s less UPSTREAM_TIMEOUT are waited; 0 turns waiting off."`
	UpstreamMaxInFlight int           `envconfig:"UPSTREAM_MAX_IN_FLIGHT" default:"512" desc:"Maximum number of concurrent requests to each instance of a service. Further ones get 503. A signed-in user can have at most an eighth of them in progress, and a network half; further ones get 429."`

	api.RateLimits
}

// upstreamStall is how long a response that has begun may pause.
const upstreamStall = 30 * time.Second

// maxUpstreamTime leaves time to send the response: the server gives up after 30 s.
const maxUpstreamTime = 25 * time.Second

// minShare is how many requests a client can have in progress at least: a browser opens six
// connections.
const minShare = 8

// services returns the services by their names.
func (c Config) services(log *slog.Logger, metrics prometheus.Registerer) map[string]*upstream.Service {
	o := upstream.Options{
		Timeout: c.UpstreamTimeout, Wait: min(c.UpstreamWait, maxUpstreamTime-c.UpstreamTimeout), Stall: upstreamStall, MaxInFlight: c.UpstreamMaxInFlight,
		MaxPerUser: max(minShare, c.UpstreamMaxInFlight/8), MaxPerNetwork: max(minShare, c.UpstreamMaxInFlight/2),
		Log: log, Metrics: upstream.NewMetrics(metrics),
	}
	services := map[string]*upstream.Service{}
	for name, addresses := range map[string]upstream.Addresses{"auth": c.AuthURL, "user": c.UserURL, "email": c.EmailURL, "audit": c.AuditURL} {
		services[name] = upstream.New(name, addresses, o)
	}
	return services
}

// ValidateOwn checks the variables that only the gateway has.
func (c Config) ValidateOwn() error {
	var err error
	if c.PublicBaseURL != "" {
		err = c.CheckURL("PUBLIC_BASE_URL", c.PublicBaseURL)
	}
	for _, origin := range c.CORSOrigins {
		err = errors.Join(err, c.CheckURL("CORS_ORIGINS", origin))
	}
	if c.UpstreamTimeout <= 0 || c.UpstreamTimeout > maxUpstreamTime {
		err = errors.Join(err, fmt.Errorf("UPSTREAM_TIMEOUT: want more than 0 and at most %s", maxUpstreamTime))
	}
	if c.UpstreamWait < 0 {
		err = errors.Join(err, errors.New("UPSTREAM_WAIT: want 0 or more"))
	}
	if c.UpstreamMaxInFlight < 1 {
		err = errors.Join(err, errors.New("UPSTREAM_MAX_IN_FLIGHT: want at least 1"))
	}
	if c.MaxConnections < 1 {
		err = errors.Join(err, errors.New("MAX_CONNECTIONS: want at least 1"))
	}
	for name, limit := range map[string]int{
		"REALTIME_MAX_CONNECTIONS": c.RealtimeConnections, "REALTIME_MAX_CONNECTIONS_PER_IP": c.RealtimeConnectionsPerIP,
		"REALTIME_MAX_CONNECTIONS_PER_USER": c.RealtimeConnectionsPerUser,
	} {
		if limit < 1 {
			err = errors.Join(err, fmt.Errorf("%s: want at least 1", name))
		}
	}
	err = errors.Join(err, c.stepUp().Validate())
	if c.MaxConnectionsPerIP < 1 {
		err = errors.Join(err, errors.New("MAX_CONNECTIONS_PER_IP: want at least 1"))
	}
	return err
}

// stepUp returns which roles need a second factor. The gateway has no route that needs a recent
// sign-in.
func (c Config) stepUp() web.StepUp {
	return web.StepUp{ReauthWindow: time.Minute, RequireMFAFor: c.RequireMFAFor}
}

func (c Config) connections(log *slog.Logger, metrics prometheus.Registerer) api.ConnectionsConfig {
	return api.ConnectionsConfig{
		Total: c.MaxConnections, PerNetwork: c.MaxConnectionsPerIP, Trusted: c.TrustedProxies, Log: log, Metrics: metrics, Now: time.Now,
	}
}
