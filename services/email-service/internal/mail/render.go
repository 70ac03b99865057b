package mail

import (
	"bytes"
	"embed"
	"fmt"
	htmltemplate "html/template"
	"maps"
	"slices"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode/utf8"

	"github.com/headgate/headgate/pkg/event"
)

//go:embed templates
var files embed.FS

// product is the name in the frame of every mail.
const product = "Headgate"

// content is what templates may show. Nothing that a stranger wrote is in it:
// whoever signs up chooses the name, whoever stole a token chooses the user agent,
// and either could make us send an advertisement or a trap to somebody else.
type content struct {
	Product string
	Subject string
	Link    string
	Button  string
	Until   string
	At      string
	IP      string // of whoever caused it; empty if that was not the owner
	Method  string // of a changed password
	Kind    string // of a factor
	Factor  string // the same as the beginning of a sentence
	ByAdmin bool   // Did an administrator do it?

	expires time.Time // after which the mail is of no use; never if zero
}

// factors are the kinds of factors that mails have words for.
var factors = map[string]string{"totp": "An authenticator app", "passkey": "A passkey"}

// factor returns the beginning of a sentence about a factor of a kind.
func factor(kind string) string {
	if name, ok := factors[kind]; ok {
		return name
	}
	return "A way to sign in"
}

// templates are the two forms of one kind of mail.
type templates struct {
	name    string
	subject *texttemplate.Template
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
	event.MFAEnrolled{}.EventName():               {load("mfa_enrolled", "{{.Factor}} was added to your account"), "", ""},
	event.MFARemoved{}.EventName():                {load("mfa_removed", "{{.Factor}} was removed from your account"), "", ""},
	event.UserSignUpRepeated{}.EventName():        {load("signup_repeated", "You already have an account"), "", ""},
	event.SessionRefreshReused{}.EventName():      {load("session_ended", "We ended a session of yours"), "", ""},
}

// Events returns the names of the events that Mail takes.
func Events() []string { return slices.Sorted(maps.Keys(kinds)) }

func load(name, subject string) *templates {
	return &templates{
		name:    name,
		subject: texttemplate.Must(texttemplate.New("subject").Parse(subject)),
		html:    htmltemplate.Must(htmltemplate.ParseFS(files, "templates/frame.html", "templates/parts.html", "templates/"+name+".html")),
		text:    texttemplate.Must(texttemplate.ParseFS(files, "templates/frame.txt", "templates/parts.txt", "templates/"+name+".txt")),
	}
}

func (t *templates) render(m Message, c content) (Letter, error) {
	var subject, html, text bytes.Buffer
	if err := t.subject.Execute(&subject, c); err != nil {
		return Letter{}, fmt.Errorf("render %s: %w", t.name, err)
	}
	c.Product, c.Subject = product, subject.String()
	if err := t.html.ExecuteTemplate(&html, "frame.html", c); err != nil {
		return Letter{}, fmt.Errorf("render %s: %w", t.name, err)
	}
	if err := t.text.ExecuteTemplate(&text, "frame.txt", c); err != nil {
		return Letter{}, fmt.Errorf("render %s: %w", t.name, err)
	}
	return Letter{Message: m, Subject: c.Subject, HTML: html.String(), Text: wrap(text.String())}, nil
}

// columns is how long a line of text is at most.
const columns = 76

// wrap breaks the lines of every paragraph anew. A word that is longer than a line,
// such as a link, stays whole.
func wrap(text string) string {
	var out strings.Builder
	for paragraph := range strings.SplitSeq(text, "\n\n") {
		column := 0
		for word := range strings.FieldsSeq(paragraph) {
			width := utf8.RuneCountInString(word)
			switch {
			case column == 0 && out.Len() > 0:
				out.WriteString("\n\n")
			case column > 0 && column+1+width > columns:
				out.WriteString("\n")
				column = 0
			case column > 0:
				out.WriteString(" ")
				column++
			}
			out.WriteString(word)
			column += width
		}
	}
	out.WriteString("\n")
	return out.String()
}
