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

// content is what templates may show. It has no text that an attacker can choose, such as
// the name of a new account or the user agent of a request: such text could turn our mail
// into an advertisement or a phishing attempt.
type content struct {
	Product string
	Subject string
	Link    string
	Button  string
	Until   string
	At      string
	IP      string // where the request came from; empty if an administrator made it
	Code    string // that the reader enters
	Method  string // how the password was changed

	PasskeysRemoved, PasskeysLeft int // with the password

	Left     int    // recovery codes
	Failures int    // to sign in
	Role     string // that the account now has

	Kind    string // of a factor
	Factor  string // the factor, as the beginning of a sentence
	ByAdmin bool   // an administrator made the change

	expires time.Time // when the mail becomes useless; zero if never
}

// factors are the kinds of factors that mails have words for.
var factors = map[string]string{"totp": "An authenticator app", "passkey": "A passkey"}

// factor returns the beginning of a sentence about a factor of a kind.
func factor(kind string) string {
	if name, ok := factors[kind]; ok {
		return name
	}
	return "A sign-in method"
}

// roles are the roles that mails have words for.
var roles = map[string]string{"user": "user", "auditor": "auditor", "admin": "administrator"}

// templates are the HTML and the text of one kind of mail.
type templates struct {
	name    string
	subject *texttemplate.Template
	html    *htmltemplate.Template
	text    *texttemplate.Template
}

// kind is the mail that an event calls for: a notice, a code, or a link.
type kind struct {
	*templates

	event  event.Payload
	path   string // of the link; empty for a notice or a code
	button string // the text of the link to it
}

// authPath is where auth-service has the landing pages.
const authPath = "/api/v1/auth"

var kinds = byEvent(
	kind{load("verification", "Confirm your email address"), event.UserVerificationRequested{}, authPath + "/verify-email", "Confirm address"},
	kind{load("reset_password", "Choose a new password"), event.UserResetLinkIssued{}, authPath + "/reset-password", "Choose a new password"},
	kind{load("email_change", "Confirm your new email address"), event.UserEmailChangeLinkIssued{}, authPath + "/change-email/confirm", "Use this address"},
	kind{load("email_changed", "Your email address was changed"), event.UserEmailRevertLinkIssued{}, authPath + "/change-email/revert", "Undo the change"},
	kind{load("export", "Your data is ready"), event.UserExportLinkIssued{}, "/api/v1/user/export", "Download"},
	kind{load("password_changed", "Your password was changed"), event.UserPasswordChanged{}, "", ""},
	kind{load("mfa_enrolled", "{{.Factor}} was added to your account"), event.MFAEnrolled{}, "", ""},
	kind{load("mfa_removed", "{{.Factor}} was removed from your account"), event.MFARemoved{}, "", ""},
	kind{load("reauth_code", "Your confirmation code"), event.UserReauthCodeIssued{}, "", ""},
	kind{load("password_removed", "Your password was switched off"), event.UserPasswordRemoved{}, "", ""},
	kind{load("recovery_codes_made", "New recovery codes were created"), event.MFARecoveryCodesMade{}, "", ""},
	kind{load("recovery_code_used", "A recovery code was used"), event.MFARecoveryCodeUsed{}, "", ""},
	kind{load("new_device", "New sign-in to your account"), event.UserSignedInFromNewDevice{}, "", ""},
	kind{load("guessed", `{{if eq .Method "code"}}Someone knows your password{{else}}Sign-in after many failed attempts{{end}}`), event.UserGuessed{}, "", ""},
	kind{load("role_changed", "The role of your account was changed"), event.UserRoleChanged{}, "", ""},
	kind{load("disabled", "Your account was disabled"), event.UserDisabled{}, "", ""},
	kind{load("enabled", "Your account was enabled again"), event.UserEnabled{}, "", ""},
	kind{load("deletion_scheduled", "Your account will be deleted"), event.UserDeletionScheduled{}, "", ""},
	kind{load("deletion_cancelled", "Your account was restored"), event.UserDeletionCancelled{}, "", ""},
	kind{load("signup_repeated", "You already have an account"), event.UserSignUpRepeated{}, "", ""},
	kind{load("sign_in_limited", "Many sign-ins to your account failed"), event.UserSignInLimited{}, "", ""},
	kind{load("session_ended", "We ended one of your sessions"), event.SessionRefreshReused{}, "", ""},
)

func byEvent(list ...kind) map[string]kind {
	kinds := make(map[string]kind, len(list))
	for _, k := range list {
		kinds[k.event.EventName()] = k
	}
	return kinds
}

// Events returns the names of the events that call for a mail.
func Events() []string { return slices.Sorted(maps.Keys(kinds)) }

func load(name, subject string) *templates {
	return &templates{
		name:    name,
		subject: texttemplate.Must(texttemplate.New("subject").Parse(subject)),
		html:    htmltemplate.Must(htmltemplate.ParseFS(files, "templates/frame.html", "templates/parts.html", "templates/"+name+".html")),
		text:    texttemplate.Must(texttemplate.ParseFS(files, "templates/frame.txt", "templates/parts.txt", "templates/"+name+".txt")),
	}
}

func (t *templates) render(d Delivery, c content) (Message, error) {
	var subject, html, text bytes.Buffer
	if err := t.subject.Execute(&subject, c); err != nil {
		return Message{}, fmt.Errorf("render %s: %w", t.name, err)
	}
	c.Subject = subject.String()
	if err := t.html.ExecuteTemplate(&html, "frame.html", c); err != nil {
		return Message{}, fmt.Errorf("render %s: %w", t.name, err)
	}
	if err := t.text.ExecuteTemplate(&text, "frame.txt", c); err != nil {
		return Message{}, fmt.Errorf("render %s: %w", t.name, err)
	}
	return Message{Delivery: d, Subject: c.Subject, HTML: html.String(), Text: wrap(text.String())}, nil
}

// columns is the maximum length of a line of text.
const columns = 76

// wrap wraps the lines of each paragraph. A word that is longer than a line, such as a
// link, is not broken.
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
