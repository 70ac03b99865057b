package main

import (
	"errors"
	"fmt"
	"net/mail"
	"net/url"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/email-service/internal/smtp"
)

// Config is what the environment says.
type Config struct {
	service.Common
	web.Listener
	web.Behind
	postgres.Database
	bus.Redis
	bus.Streams
	token.Expected
	token.Remote

	SMTPURL         service.Secret `envconfig:"SMTP_URL" ignored:"true" required:"true" desc:"The mail server: smtp://user:password@host:587, smtps://… for TLS from the start; ?starttls=required (the rule for other machines), opportunistic or off."`
	SMTPTimeout     time.Duration  `envconfig:"SMTP_TIMEOUT" default:"10s" desc:"How long connecting may take, and again each mail; at most 20s."`
	SMTPConcurrency int            `envconfig:"SMTP_CONCURRENCY" default:"8" desc:"Mails handed over at a time, each on a connection of its own; less than DATABASE_MAX_CONNS."`
	MailRetryFirst  time.Duration  `envconfig:"MAIL_RETRY_FIRST" default:"1m" desc:"The pause before the second attempt of a mail that the server put off; then 5, 15, 60 and 240 times that, for 48 hours."`
	MailFrom        string         `envconfig:"MAIL_FROM" required:"true" desc:"The sender, such as Example <no-reply@example.com>. Its domain is also that of the Message-IDs."`
	PublicBaseURL   string         `envconfig:"PUBLIC_BASE_URL" required:"true" desc:"The URL by which people reach the gateway; links in mails begin with it."`
	EventSealKey    service.Secret `envconfig:"EVENT_SEAL_KEY" ignored:"true" generate:"true" desc:"Opens the links that auth-service seals; the same as auth-service's. At least 32 random characters."`
}

// ValidateOwn checks the fields that are email-service's own.
func (c Config) ValidateOwn() error {
	faults := []error{service.Strong("EVENT_SEAL_KEY", c.EventSealKey)}
	if _, err := smtp.ParseURL(c.SMTPURL.Reveal()); err != nil {
		faults = append(faults, fmt.Errorf("SMTP_URL: %w", err))
	}
	if c.SMTPTimeout <= 0 || c.SMTPTimeout > 20*time.Second {
		faults = append(faults, errors.New("SMTP_TIMEOUT: want more than 0 and at most 20s"))
	}
	if c.SMTPConcurrency < 1 || c.SMTPConcurrency > int(c.DatabaseMaxConns)-2 {
		faults = append(faults, errors.New("SMTP_CONCURRENCY: want 1 or more, and at least 2 less than DATABASE_MAX_CONNS"))
	}
	if c.MailRetryFirst < time.Second || c.MailRetryFirst > time.Hour {
		faults = append(faults, errors.New("MAIL_RETRY_FIRST: want 1s to 1h"))
	}
	if _, err := mail.ParseAddress(c.MailFrom); err != nil {
		faults = append(faults, errors.New("MAIL_FROM: want Name <name@example.com>"))
	}
	if !origin(c.PublicBaseURL) {
		faults = append(faults, errors.New("PUBLIC_BASE_URL: want http(s)://host[:port] and nothing more"))
	}
	return errors.Join(faults...)
}

// origin says whether text is a scheme and a host: links in mails are this and a
// path, so anything else in it would make them lead elsewhere.
func origin(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return false
	}
	return strings.TrimSuffix(text, "/") == u.Scheme+"://"+u.Host
}

// queuedPerConnection is how many events wait, for each mail being sent.
const queuedPerConnection = 4

// window is how many events are in flight.
func (c Config) window() int { return queuedPerConnection * c.SMTPConcurrency }

// attemptTimeout lets the last of a full window have its turn even if the mail
// server is as slow with each as is allowed: waiting must not count as failing.
// The window counts twice, for entries taken over come on top of it.
func (c Config) attemptTimeout() time.Duration {
	const rounds = 2*queuedPerConnection + 1
	return rounds * 2 * c.SMTPTimeout // to connect, and to send
}
