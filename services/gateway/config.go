package main

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/limit"
)

// Config is what the environment says.
type Config struct {
	service.Common
	web.Listener
	bus.Redis
	token.Expected
	token.Remote

	TrustedProxies web.Prefixes `envconfig:"TRUSTED_PROXIES" desc:"Networks of the proxies in front of the gateway, as CIDRs with commas; only their X-Forwarded-For is believed. None if empty."`

	AuthURL  string `envconfig:"AUTH_URL" required:"true" desc:"Address of auth-service, such as http://auth-service:8080."`
	UserURL  string `envconfig:"USER_URL" required:"true" desc:"Address of user-service."`
	EmailURL string `envconfig:"EMAIL_URL" required:"true" desc:"Address of email-service."`
	AuditURL string `envconfig:"AUDIT_URL" required:"true" desc:"Address of audit-service."`

	UpstreamTimeout time.Duration `envconfig:"UPSTREAM_TIMEOUT" default:"15s" desc:"How long a service may take to begin its answer; at most 25s."`

	LoginRate     limit.Rate `envconfig:"LOGIN_RATE_LIMIT" default:"5/15m" desc:"Logins for each account and address: requests/window, or off. Every request counts."`
	LoginIPRate   limit.Rate `envconfig:"LOGIN_IP_RATE_LIMIT" default:"40/15m" desc:"Logins for each address."`
	RefreshRate   limit.Rate `envconfig:"REFRESH_RATE_LIMIT" default:"10/15m" desc:"Refreshes for each session and address."`
	RefreshIPRate limit.Rate `envconfig:"REFRESH_IP_RATE_LIMIT" default:"300/15m" desc:"Refreshes for each address."`
	SignupRate    limit.Rate `envconfig:"SIGNUP_RATE_LIMIT" default:"100/15m" desc:"Sign-ups for each address."`
	MailRate      limit.Rate `envconfig:"MAIL_RATE_LIMIT" default:"20/15m" desc:"Requests for a mail, that is forgotten passwords and verifications again, for each address."`
	GeneralRate   limit.Rate `envconfig:"GENERAL_RATE_LIMIT" default:"1200/1m" desc:"Requests for each user, or address if nobody is signed in, on each gateway."`
}

// services returns the addresses of the services by their names.
func (c Config) services() (map[string]*url.URL, error) {
	found := map[string]*url.URL{}
	var faults []error
	for _, s := range []struct{ name, variable, address string }{
		{"auth", "AUTH_URL", c.AuthURL},
		{"user", "USER_URL", c.UserURL},
		{"email", "EMAIL_URL", c.EmailURL},
		{"audit", "AUDIT_URL", c.AuditURL},
	} {
		u, err := url.Parse(s.address)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" {
			faults = append(faults, fmt.Errorf("%s: want http(s)://host:port", s.variable))
			continue
		}
		found[s.name] = u
	}
	return found, errors.Join(faults...)
}

// ValidateAll checks what is the gateway's own.
func (c Config) ValidateAll() error {
	_, err := c.services()
	if c.UpstreamTimeout <= 0 || c.UpstreamTimeout > 25*time.Second {
		err = errors.Join(err, errors.New("UPSTREAM_TIMEOUT: want more than 0 and at most 25s"))
	}
	return err
}

func (c Config) limits() api.Limits {
	return api.Limits{
		Login: c.LoginRate, LoginIP: c.LoginIPRate, Refresh: c.RefreshRate, RefreshIP: c.RefreshIPRate,
		SignupIP: c.SignupRate, Mail: c.MailRate, General: c.GeneralRate,
	}
}
