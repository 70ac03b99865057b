package mail

import (
	"bytes"
	"embed"
	"fmt"
	htmltemplate "html/template"
	texttemplate "text/template"
	"time"
)

//go:embed templates
var files embed.FS

// content is what templates may show. Nothing that a stranger wrote is in it:
// whoever signs up chooses the name, whoever stole a token chooses the user agent,
// and either could make us send an advertisement or a trap to somebody else.
type content struct {
	Subject string
	Link    string
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

var (
	verification = load("verification", "Confirm your email address")
	reuse        = load("session_ended", "We ended a session of yours")
)

func load(name, subject string) *templates {
	return &templates{
		name:    name,
		subject: subject,
		html:    htmltemplate.Must(htmltemplate.ParseFS(files, "templates/frame.html", "templates/"+name+".html")),
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
