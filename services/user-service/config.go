package main

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// Config is the configuration, read from the environment.
type Config struct {
	backend.Config
	deadletter.Retention
	token.Remote

	ProfileCacheMemory uint32 `envconfig:"PROFILE_CACHE_MEMORY" default:"33554432" desc:"Bytes of memory for the profiles that are read most often. 0 keeps none: then each read asks Redis."`

	ReplicaURLs service.Secret `envconfig:"DATABASE_REPLICA_URLS" ignored:"true" desc:"Comma-separated connection strings of streaming replicas of the database. The list of profiles is read there while a replica lags by at most five seconds; everything else is read from DATABASE_URL."`

	EmailURL     string         `envconfig:"EMAIL_URL" desc:"URL of email-service, for example http://email-service:8080. Exports of a user's data need it."`
	AuditURL     string         `envconfig:"AUDIT_URL" desc:"URL of audit-service. Exports need it."`
	EventSealKey service.Secret `envconfig:"EVENT_SEAL_KEY" ignored:"true" desc:"Seals links in events for email-service; the same as auth-service's, also in development. Without it, links to exports cannot be mailed."`
	ExportTTL    time.Duration  `envconfig:"EXPORT_TTL" default:"24h" desc:"How long a mailed link to an export is valid; 10m to 168h."`
}

// ValidateOwn checks the fields that are user-service's own.
func (c Config) ValidateOwn() error {
	var faults []error
	for variable, value := range map[string]string{"EMAIL_URL": c.EmailURL, "AUDIT_URL": c.AuditURL} {
		at, err := url.Parse(value)
		if value != "" && (err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "") {
			faults = append(faults, fmt.Errorf("%s: want http(s)://host", variable))
		}
	}
	if c.EventSealKey != "" {
		_, err := service.ParseKeys("EVENT_SEAL_KEY", c.EventSealKey)
		faults = append(faults, err)
	}
	if c.ExportTTL < 10*time.Minute || c.ExportTTL > 168*time.Hour {
		faults = append(faults, errors.New("EXPORT_TTL: want 10m to 168h"))
	}
	return errors.Join(faults...)
}

// sources are the services that are asked for exports. auth-service is where the keys are.
func (c Config) sources() []profile.Source {
	return []profile.Source{api.Source("auth", c.JWKSURL), api.Source("email", c.EmailURL), api.Source("audit", c.AuditURL)}
}

// sealer returns the sealer of mailed links, or nil if they cannot be mailed.
func (c Config) sealer() (*event.Sealer, error) {
	secret := c.EventSealKey
	switch {
	case secret != "":
	case c.Development():
		generated, err := c.GeneratedSecret("EVENT_SEAL_KEY")
		if err != nil {
			return nil, err
		}
		secret = service.Secret(generated)
	default:
		return nil, nil //nolint:nilnil // Exports can be downloaded as well.
	}
	keys, err := service.ParseKeys("EVENT_SEAL_KEY", secret)
	if err != nil {
		return nil, err
	}
	return event.NewSealer(keys.Reveal())
}
