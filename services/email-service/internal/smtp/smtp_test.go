package smtp_test

import (
	"strings"
	"testing"

	gomail "github.com/wneessen/go-mail"

	"github.com/headgate/headgate/services/email-service/internal/smtp"
)

func TestParseURL(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]smtp.Server{
		"smtp://127.0.0.1:1025":                           {Host: "127.0.0.1", Port: 1025, Policy: gomail.TLSOpportunistic},
		"smtp://mail.example.com":                         {Host: "mail.example.com", Port: 587, Policy: gomail.TLSMandatory},
		"smtp://u:p%40ss@mail.example.com:25":             {Host: "mail.example.com", Port: 25, Username: "u", Password: "p@ss", Policy: gomail.TLSMandatory},
		"smtps://u:p@mail.example.com":                    {Host: "mail.example.com", Port: 465, Username: "u", Password: "p", Implicit: true, Policy: gomail.TLSMandatory},
		"smtp://mailpit:1025?starttls=off":                {Host: "mailpit", Port: 1025, Policy: gomail.NoTLS},
		"smtp://mail.example.com/?starttls=opportunistic": {Host: "mail.example.com", Port: 587, Policy: gomail.TLSOpportunistic},
	} {
		if got, err := smtp.ParseURL(text); err != nil || got != want {
			t.Errorf("ParseURL(%q) = %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "mail.example.com", "http://mail.example.com", "smtp://", "smtp://h:0", "smtp://h:99999", "smtp://h/path", "smtp://h?starttls=maybe",
		"smtp://u:geheim@mail.example.com?starttls=off", "smtp://u:geheim@mail.example.com?starttls=opportunistic", "smtp://u:geheim@h:port",
	} {
		if _, err := smtp.ParseURL(text); err == nil || strings.Contains(err.Error(), "geheim") {
			t.Errorf("ParseURL(%q) = %v", text, err)
		}
	}
}
