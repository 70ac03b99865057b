// Package mailbox is a mail server for development. It accepts every message by SMTP,
// delivers none, and shows them on a web page and as JSON with the API of Mailpit. It keeps
// the newest messages, in memory only.
package mailbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
)

// The limits of the mailbox; the oldest messages are dropped first.
const (
	maxMessages = 1000
	maxBytes    = 256 << 20
	// maxMessageBytes is the maximum size of a message.
	maxMessageBytes = 10 << 20
)

// Mailbox holds messages. Its methods may be called concurrently.
type Mailbox struct {
	mu       sync.RWMutex
	messages []*message // oldest first
	bytes    int
}

// New returns an empty mailbox.
func New() *Mailbox { return &Mailbox{} }

// Serve answers SMTP on mail and HTTP on web, and closes both when ctx ends.
func (m *Mailbox) Serve(ctx context.Context, mail, web net.Listener) error {
	incoming := m.smtpServer()
	pages := &http.Server{Handler: m.Handler(), ReadHeaderTimeout: 10 * time.Second}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var servers sync.WaitGroup
	var smtpErr, httpErr error
	servers.Go(func() {
		defer cancel()
		smtpErr = incoming.Serve(mail)
	})
	servers.Go(func() {
		defer cancel()
		httpErr = pages.Serve(web)
	})
	<-ctx.Done()
	// Open connections are not waited for. The listeners are closed as well, because Close
	// does not close one that Serve does not use yet.
	closing := errors.Join(ignoreClosed(incoming.Close()), ignoreClosed(pages.Close()), ignoreClosed(mail.Close()), ignoreClosed(web.Close()))
	servers.Wait()
	if err := errors.Join(ignoreClosed(smtpErr), ignoreClosed(httpErr), closing); err != nil {
		return fmt.Errorf("serve mailbox: %w", err)
	}
	return nil
}

func ignoreClosed(err error) error {
	if errors.Is(err, http.ErrServerClosed) || errors.Is(err, smtp.ErrServerClosed) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// put adds the message as the newest.
func (m *Mailbox) put(msg *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = append(m.messages, msg)
	m.bytes += len(msg.raw)
	drop := 0
	for len(m.messages)-drop > maxMessages || m.bytes > maxBytes {
		m.bytes -= len(m.messages[drop].raw)
		drop++
	}
	m.messages = slices.Delete(m.messages, 0, drop)
}

// find returns the message with the id, or the newest if that is "latest".
func (m *Mailbox) find(id string) (*message, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if id == "latest" && len(m.messages) > 0 {
		return m.messages[len(m.messages)-1], true
	}
	at := slices.IndexFunc(m.messages, func(msg *message) bool { return msg.ID == id })
	if at < 0 {
		return nil, false
	}
	return m.messages[at], true
}

// markRead marks the message as read.
func (m *Mailbox) markRead(msg *message) {
	m.mu.Lock()
	defer m.mu.Unlock()
	msg.read = true
}

// remove deletes the messages with the ids, or all if there are no ids.
func (m *Mailbox) remove(ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = slices.DeleteFunc(m.messages, func(msg *message) bool {
		gone := len(ids) == 0 || slices.Contains(ids, msg.ID)
		if gone {
			m.bytes -= len(msg.raw)
		}
		return gone
	})
}

// list returns a page of the messages that match, newest first.
func (m *Mailbox) list(match func(*message) bool, start, limit int) listing {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l := listing{Start: start, Tags: []string{}, Messages: []summary{}}
	for _, msg := range slices.Backward(m.messages) {
		l.Total++
		if !msg.read {
			l.Unread++
		}
		if !match(msg) {
			continue
		}
		if l.MessagesCount >= start && len(l.Messages) < limit {
			l.Messages = append(l.Messages, msg.summary())
		}
		l.MessagesCount++
		if !msg.read {
			l.MessagesUnread++
		}
	}
	l.Count = len(l.Messages)
	return l
}

// query returns a matcher of a search such as `to:"a@example.com" verify`.
func query(text string) func(*message) bool {
	var terms []func(*message) bool
	for _, term := range split(strings.ToLower(text)) {
		field, value, ok := strings.Cut(term, ":")
		if !ok {
			field, value = "", term
		}
		switch field {
		case "to", "from", "cc", "bcc", "subject":
		default:
			field, value = "", term
		}
		value = strings.ReplaceAll(value, `"`, "")
		terms = append(terms, func(msg *message) bool { return strings.Contains(msg.field(field), value) })
	}
	return func(msg *message) bool {
		for _, term := range terms {
			if !term(msg) {
				return false
			}
		}
		return true
	}
}

// split cuts at spaces outside quotation marks.
func split(text string) []string {
	quoted := false
	return strings.FieldsFunc(text, func(r rune) bool {
		if r == '"' {
			quoted = !quoted
		}
		return r == ' ' && !quoted
	})
}
