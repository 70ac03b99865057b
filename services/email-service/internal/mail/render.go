package mail

import (
	"bytes"
	"embed"
	"fmt"
	htmltemplate "html/template"
	"maps"
	"slices"
	texttemplate "text/template"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

//go:embed templates
var files embed.FS

// content is what templates may show. Nothing that a stranger wrote is in it:
// whoever signs up chooses the name, whoever stole a token chooses the user agent,
// and either could make us send an advertisement or a trap to somebody else.
type content struct {
	Subject string
	Link    string
	Button  string
	Until   string
	At      string
	IP      string

	expires time.Time // after which the mail is of no use; never if zero
}

// templates are the two forms of one kind of mail.
type templates struct {
	name    string
	subject string
	html    *htmltemplate.Template
	text    *texttemplate.Template
}

// kind is what is mailed for an event: a notice, or a link to a landing page of
// auth-service.
type kind struct {
	*templates

	path   string // of the landing page, or empty
	button string // what the link to it says
}

var kinds = map[string]kind{
	event.UserVerificationRequested{}.EventName(): {load("verification", "Confirm your email address"), "/verify-email", "Confirm my address"},
	event.UserResetLinkIssued{}.EventName():       {load("reset_password", "Choose a new password"), "/reset-password", "Choose a new password"},
	event.UserEmailChangeLinkIssued{}.EventName(): {load("email_change", "Confirm your new email address"), "/change-email/confirm", "Use this address"},
	event.UserEmailRevertLinkIssued{}.EventName(): {load("email_changed", "Your email address was changed"), "/change-email/revert", "Take the change back"},
	event.UserPasswordChanged{}.EventName():       {load("password_changed", "Your password was changed"), "", ""},
	event.MFAEnrolled{}.EventName():               {load("mfa_enrolled", "A second factor was added to your account"), "", ""},
	event.MFARemoved{}.EventName():                {load("mfa_removed", "A second factor was removed from your account"), "", ""},
	event.UserSignUpRepeated{}.EventName():        {load("signup_repeated", "You already have an account"), "", ""},
	event.SessionRefreshReused{}.EventName():      {load("session_ended", "We ended a session of yours"), "", ""},
}

// Events returns the names of the events that Mail takes.
func Events() []string { return slices.Sorted(maps.Keys(kinds)) }

func load(name, subject string) *templates {
	return &templates{
		name:    name,
		subject: subject,
		html:    htmltemplate.Must(htmltemplate.ParseFS(files, "templates/frame.html", "templates/parts.html", "templates/"+name+".html")),
		text:    texttemplate.Must(texttemplate.ParseFS(files, "templates/"+name+".txt")),
	}
}

func (t *templates) render(m Message, c content) (Letter, error) {
	c.Subject = t.subject
	var html, text bytes.Buffer
	if err := t.html.ExecuteTemplate(&html, "frame.html", c); err != nil {
		return Letter{}, fmt.Errorf("render %s: %w", t.name, err)
	}
	if err := t.text.Execute(&text, c); err != nil {
		return Letter{}, fmt.Errorf("render %s: %w", t.name, err)
	}
	return Letter{Message: m, Subject: t.subject, HTML: html.String(), Text: text.String()}, nil
}
