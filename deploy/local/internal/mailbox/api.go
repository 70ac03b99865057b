package mailbox

import (
	"embed"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	netmail "net/mail"
	"strconv"
	"strings"
	"time"
)

// The types of Mailpit's API.
type (
	summary struct {
		ID          string
		MessageID   string
		Read        bool
		From        *netmail.Address
		To          []*netmail.Address
		Cc          []*netmail.Address
		Bcc         []*netmail.Address
		ReplyTo     []*netmail.Address
		Subject     string
		Created     time.Time
		Username    string
		Tags        []string
		Size        int
		Attachments int
		Snippet     string
	}

	listing struct {
		Total          int       `json:"total"`
		Unread         int       `json:"unread"`
		Count          int       `json:"count"`
		MessagesCount  int       `json:"messages_count"`
		MessagesUnread int       `json:"messages_unread"`
		Start          int       `json:"start"`
		Tags           []string  `json:"tags"`
		Messages       []summary `json:"messages"`
	}

	detail struct {
		ID          string
		MessageID   string
		From        *netmail.Address
		To          []*netmail.Address
		Cc          []*netmail.Address
		Bcc         []*netmail.Address
		ReplyTo     []*netmail.Address
		ReturnPath  string
		Subject     string
		Date        time.Time
		Tags        []string
		Username    string
		Text        string
		HTML        string
		Size        int
		Inline      []part
		Attachments []part
	}
)

func (m *message) summary() summary {
	return summary{
		ID: m.ID, MessageID: m.messageID, Read: m.read, From: m.from, To: list(m.to), Cc: list(m.cc), Bcc: list(m.bcc), ReplyTo: list(m.replyTo),
		Subject: m.subject, Created: m.created, Tags: []string{}, Size: len(m.raw), Attachments: len(m.attached), Snippet: m.snippet(),
	}
}

func (m *message) detail() detail {
	return detail{
		ID: m.ID, MessageID: m.messageID, From: m.from, To: list(m.to), Cc: list(m.cc), Bcc: list(m.bcc), ReplyTo: list(m.replyTo),
		ReturnPath: m.returnPath, Subject: m.subject, Date: m.date, Tags: []string{}, Text: m.text, HTML: m.html, Size: len(m.raw),
		Inline: list(m.inline), Attachments: list(m.attached),
	}
}

// list returns items, or an empty list instead of nil, which JSON would encode as null.
func list[T any](items []T) []T {
	if items == nil {
		return []T{}
	}
	return items
}

//go:embed page
var page embed.FS

// pagePolicy allows the page to load only its own files. viewPolicy allows a message to load
// and run nothing, but its links can be opened.
const (
	pagePolicy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
	viewPolicy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox"
)

// Handler serves the page and Mailpit's API.
func (m *Mailbox) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /api/v1/messages", func(w http.ResponseWriter, r *http.Request) {
		m.answerList(w, r, func(*message) bool { return true })
	})
	mux.HandleFunc("GET /api/v1/search", func(w http.ResponseWriter, r *http.Request) {
		m.answerList(w, r, query(r.FormValue("query")))
	})
	mux.HandleFunc("DELETE /api/v1/messages", m.delete)
	mux.HandleFunc("GET /api/v1/message/{id}", m.with(func(w http.ResponseWriter, _ *http.Request, msg *message) {
		m.markRead(msg)
		answer(w, msg.detail())
	}))
	mux.HandleFunc("GET /api/v1/message/{id}/raw", m.with(func(w http.ResponseWriter, _ *http.Request, msg *message) {
		write(w, "text/plain; charset=utf-8", msg.raw)
	}))
	mux.HandleFunc("GET /api/v1/message/{id}/part/{part}", m.with(answerPart))
	// A pattern cannot end in a wildcard with a suffix.
	mux.HandleFunc("GET /view/{id}", m.with(view))
	for _, path := range []string{"GET /livez", "GET /readyz"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { write(w, "text/plain; charset=utf-8", []byte("ok")) })
	}
	for path, file := range map[string]string{"GET /{$}": "index.html", "GET /app.js": "app.js", "GET /style.css": "style.css"} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { http.ServeFileFS(w, r, page, "page/"+file) })
	}
	return guard(mux)
}

// guard keeps other web sites from reading mail through a host name that resolves to this
// machine, and sets the common response headers.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if host != "localhost" && net.ParseIP(strings.Trim(host, "[]")) == nil {
			http.Error(w, "open the mailbox as localhost or by its IP address", http.StatusForbidden)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// with finds the message of the path, whose id may have a suffix such as .html.
func (m *Mailbox) with(handle func(http.ResponseWriter, *http.Request, *message)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id, _, _ := strings.Cut(r.PathValue("id"), ".")
		msg, ok := m.find(id)
		if !ok {
			http.Error(w, "Message not found", http.StatusNotFound)
			return
		}
		handle(w, r, msg)
	}
}

func (m *Mailbox) answerList(w http.ResponseWriter, r *http.Request, match func(*message) bool) {
	const defaultLimit = 50
	answer(w, m.list(match, number(r, "start", 0), number(r, "limit", defaultLimit)))
}

func number(r *http.Request, name string, fallback int) int {
	n, err := strconv.Atoi(r.FormValue(name))
	if err != nil || n < 0 {
		return fallback
	}
	return n
}

func (m *Mailbox) delete(w http.ResponseWriter, r *http.Request) {
	var body struct{ IDs []string }
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<20)).Decode(&body)
	if err != nil && !errors.Is(err, io.EOF) {
		http.Error(w, "Invalid body: send {\"IDs\": []} or no body", http.StatusBadRequest)
		return
	}
	m.remove(body.IDs)
	write(w, "text/plain; charset=utf-8", []byte("ok"))
}

func answerPart(w http.ResponseWriter, r *http.Request, msg *message) {
	for _, p := range append(list(msg.inline), msg.attached...) {
		if p.PartID == r.PathValue("part") {
			w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": p.FileName}))
			write(w, p.ContentType, p.content)
			return
		}
	}
	http.Error(w, "Part not found", http.StatusNotFound)
}

// view shows a message as its recipient sees it. Its links open in a new tab.
func view(w http.ResponseWriter, r *http.Request, msg *message) {
	if strings.HasSuffix(r.PathValue("id"), ".txt") {
		write(w, "text/plain; charset=utf-8", []byte(msg.text))
		return
	}
	w.Header().Set("Content-Security-Policy", viewPolicy)
	write(w, "text/html; charset=utf-8", []byte(`<!doctype html><base target="_blank">`+msg.html))
}

func answer(w http.ResponseWriter, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	write(w, "application/json", data)
}

func write(w http.ResponseWriter, kind string, body []byte) {
	w.Header().Set("Content-Type", kind)
	_, _ = w.Write(body) // It fails if the client has gone.
}
