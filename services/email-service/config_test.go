package main

import (
	"net/mail"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/service"
)

func TestConfig(t *testing.T) {
	t.Parallel()
	const key = "0123456789abcdefghijklmnopqrstuvwxyzABCDEF"
	good := func() Config {
		c := Config{
			SMTPURL: service.Secret("smtp://127.0.0.1:1025"), SMTPTimeout: 10 * time.Second, SMTPConcurrency: 8, MailRetryFirst: time.Minute,
			MailFrom: "Example <no-reply@example.com>", PublicBaseURL: "https://id.example.com", EventSealKey: service.Secret(key),
		}
		c.DatabaseMaxConns = 20
		return c
	}
	if err := good().ValidateOwn(); err != nil {
		t.Fatalf("ValidateOwn(good) = %v", err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string // the variable in the error; empty if there is none
	}{
		"base URL with a port":         {func(c *Config) { c.PublicBaseURL = "http://localhost:8080" }, ""},
		"base URL ends with a slash":   {func(c *Config) { c.PublicBaseURL = "https://id.example.com/" }, ""},
		"base URL with a path":         {func(c *Config) { c.PublicBaseURL = "https://id.example.com/app" }, "PUBLIC_BASE_URL"},
		"base URL with a query":        {func(c *Config) { c.PublicBaseURL = "https://id.example.com?a=b" }, "PUBLIC_BASE_URL"},
		"base URL with an empty query": {func(c *Config) { c.PublicBaseURL = "https://id.example.com?" }, "PUBLIC_BASE_URL"},
		"base URL with a fragment":     {func(c *Config) { c.PublicBaseURL = "https://id.example.com#a" }, "PUBLIC_BASE_URL"},
		"base URL with a user":         {func(c *Config) { c.PublicBaseURL = "https://id.example.com@evil.example" }, "PUBLIC_BASE_URL"},
		"base URL is a script":         {func(c *Config) { c.PublicBaseURL = "javascript:alert(1)" }, "PUBLIC_BASE_URL"},
		"base URL without a host":      {func(c *Config) { c.PublicBaseURL = "https://" }, "PUBLIC_BASE_URL"},
		"base URL that is not secure":  {func(c *Config) { c.PublicBaseURL = "http://id.example.com" }, "PUBLIC_BASE_URL"},
		"weak key":                     {func(c *Config) { c.EventSealKey = service.Secret("changeme") }, "EVENT_SEAL_KEY"},
		"plain password":               {func(c *Config) { c.SMTPURL = service.Secret("smtp://u:geheim@mail.example.com?starttls=off") }, "SMTP_URL"},
		"no timeout":                   {func(c *Config) { c.SMTPTimeout = 0 }, "SMTP_TIMEOUT"},
		"more mails than pool":         {func(c *Config) { c.SMTPConcurrency = 19 }, "SMTP_CONCURRENCY"},
		"EHLO name":                    {func(c *Config) { c.SMTPHeloName = "mail.example.com" }, ""},
		"EHLO name with a line break":  {func(c *Config) { c.SMTPHeloName = "a.example\r\nRSET" }, "SMTP_HELO_NAME"},
		"EHLO name with a space":       {func(c *Config) { c.SMTPHeloName = "a b" }, "SMTP_HELO_NAME"},
		"EHLO address in no brackets":  {func(c *Config) { c.SMTPHeloName = "192.0.2.1" }, "SMTP_HELO_NAME"},
		"internationalized sender":     {func(c *Config) { c.MailFrom = "B\u00fccher <no-reply@b\u00fccher.example>" }, ""},
		"sender that needs SMTPUTF8":   {func(c *Config) { c.MailFrom = "b\u00fccher@example.com" }, "MAIL_FROM"},
		"sender with a line break":     {func(c *Config) { c.MailFrom = "A\r\nBcc: b@example.com <a@example.com>" }, "MAIL_FROM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := good()
			tc.change(&c)
			err := c.ValidateOwn()
			switch {
			case tc.want == "" && err != nil:
				t.Errorf("ValidateOwn() = %v", err)
			case tc.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tc.want+": ") || strings.Contains(err.Error(), "geheim")):
				t.Errorf("ValidateOwn() = %v, want an error for %s", err, tc.want)
			}
		})
	}
}

// Mails come from the product, unless MAIL_FROM has a name of its own.
func TestSender(t *testing.T) {
	t.Parallel()
	const brand = `Acme "Ü:+"`
	for from, want := range map[string]mail.Address{
		"no-reply@example.com":               {Name: brand, Address: "no-reply@example.com"},
		"<no-reply@example.com>":             {Name: brand, Address: "no-reply@example.com"},
		"Example <no-reply@example.com>":     {Name: "Example", Address: "no-reply@example.com"},
		`"Ex, ample" <no-reply@example.com>`: {Name: "Ex, ample", Address: "no-reply@example.com"},
	} {
		sender := Config{Brand: service.Brand{BrandName: brand}, MailFrom: from}.sender()
		got, err := mail.ParseAddress(sender)
		if err != nil || *got != want {
			t.Errorf("MAIL_FROM=%s: sender %s is %+v, %v, want %+v", from, sender, got, err, want)
		}
	}
}
