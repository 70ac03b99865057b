package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/backend"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/email-service/internal/mail"
	"github.com/headgate/headgate/services/email-service/internal/smtp"
)

// Config is the configuration, read from the environment.
type Config struct {
	backend.Config
	service.Brand
	deadletter.Retention
	token.Remote

	SMTPURL         service.Secret `envconfig:"SMTP_URL" ignored:"true" required:"true" desc:"The mail server: smtp://user:password@host:587, or smtps://… for implicit TLS. ?starttls= may be required (the default unless the host is this machine), opportunistic or off."`
	SMTPTimeout     time.Duration  `envconfig:"SMTP_TIMEOUT" default:"10s" desc:"Timeout for connecting to the mail server, and for sending one mail; at most 20s."`
	SMTPConcurrency int            `envconfig:"SMTP_CONCURRENCY" default:"8" desc:"Mails sent at the same time, each on its own connection; at least 2 less than DATABASE_MAX_CONNS."`
	SMTPHeloName    string         `envconfig:"SMTP_HELO_NAME" desc:"The full name of this machine, by which the mail server is greeted (EHLO), for example mail.example.com; the domain of MAIL_FROM if empty. Some servers refuse or distrust a name without a dot, or one that does not resolve."`
	MailRetryFirst  time.Duration  `envconfig:"MAIL_RETRY_FIRST" default:"1m" desc:"Delay before the second attempt of a deferred mail. Later delays are 5, 15, 60 and 240 times that, for 48 hours."`
	MailFrom        string         `envconfig:"MAIL_FROM" required:"true" desc:"Sender address, for example no-reply@example.com, or Example <no-reply@example.com> for another name than BRAND_NAME. Message-IDs use its domain."`
	PublicBaseURL   string         `envconfig:"PUBLIC_BASE_URL" required:"true" desc:"Public URL of the gateway. Links in mails begin with it. In production it must be https, except on localhost."`
	EventSealKey    service.Secret `envconfig:"EVENT_SEAL_KEY" ignored:"true" generate:"true" desc:"Opens the links in events; the same as auth-service's: one secret of at least 32 random characters, or a list of id:secret."`
}

// ValidateOwn checks the settings of email-service. It reports every invalid one.
func (c Config) ValidateOwn() error {
	_, err := service.ParseKeys("EVENT_SEAL_KEY", c.EventSealKey)
	invalid := []error{err}
	if _, err := smtp.ParseURL(c.SMTPURL.Reveal()); err != nil {
		invalid = append(invalid, fmt.Errorf("SMTP_URL: %w", err))
	}
	if c.SMTPTimeout <= 0 || c.SMTPTimeout > 20*time.Second {
		invalid = append(invalid, errors.New("SMTP_TIMEOUT: want more than 0 and at most 20s"))
	}
	if c.SMTPConcurrency < 1 || c.SMTPConcurrency > int(c.DatabaseMaxConns)-2 {
		invalid = append(invalid, errors.New("SMTP_CONCURRENCY: want 1 or more, and at least 2 less than DATABASE_MAX_CONNS"))
	}
	if c.MailRetryFirst < time.Second || c.MailRetryFirst > time.Hour {
		invalid = append(invalid, errors.New("MAIL_RETRY_FIRST: want 1s to 1h"))
	}
	if _, err := mail.ParseSender(c.MailFrom); err != nil {
		invalid = append(invalid, fmt.Errorf("MAIL_FROM: %w", err))
	}
	if _, err := smtp.HeloName(c.SMTPHeloName, "localhost"); err != nil {
		invalid = append(invalid, fmt.Errorf("SMTP_HELO_NAME: %w", err))
	}
	if origin(c.PublicBaseURL) {
		invalid = append(invalid, c.CheckURL("PUBLIC_BASE_URL", c.PublicBaseURL))
	} else {
		invalid = append(invalid, errors.New("PUBLIC_BASE_URL: want http(s)://host[:port] without a path"))
	}
	return errors.Join(invalid...)
}

// sender returns MAIL_FROM, with the name of the product unless it has a name.
func (c Config) sender() string {
	from, err := mail.ParseSender(c.MailFrom)
	if err != nil {
		return c.MailFrom // ValidateOwn has refused it.
	}
	from.Name = cmp.Or(from.Name, c.BrandName)
	return from.String()
}

// origin says whether text is a scheme and a host only. Links in mails are this text
// and a path, so anything more would make them lead elsewhere.
func origin(text string) bool {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return false
	}
	return strings.TrimSuffix(text, "/") == u.Scheme+"://"+u.Host
}

// queuedPerConnection is the number of events that wait for each connection.
const queuedPerConnection = 4

// window is the number of events in flight.
func (c Config) window() int { return queuedPerConnection * c.SMTPConcurrency }

// attemptTimeout is long enough for the last event of a full window, even if the mail
// server needs the whole timeout for each: an event must not fail because it waited.
// The window counts twice, because redelivered entries are added to it.
func (c Config) attemptTimeout() time.Duration {
	const rounds = 2*queuedPerConnection + 1
	return rounds * 2 * c.SMTPTimeout // to connect, and to send
}
