package mailbox

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"io"
	"mime"
	netmail "net/mail"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	gomessage "github.com/emersion/go-message"
	_ "github.com/emersion/go-message/charset" // decodes other character sets than UTF-8
	"github.com/emersion/go-message/mail"
)

// message is a received message. Only read changes.
type message struct {
	ID      string
	raw     []byte
	created time.Time
	read    bool

	messageID         string
	returnPath        string
	from              *netmail.Address
	to, cc, bcc       []*netmail.Address
	replyTo           []*netmail.Address
	subject           string
	date              time.Time
	text, html        string
	inline, attached  []part
	searchable        string
	searchableByField map[string]string
}

// part is an attachment or an inline file of a message.
type part struct {
	PartID, FileName, ContentType, ContentID string

	Size    int
	content []byte
}

// parse decodes as much of the message as possible, however malformed it is.
func parse(raw []byte, from string, to []string, now time.Time) *message {
	m := &message{ID: rand.Text(), raw: raw, created: now, date: now, returnPath: from}
	if r, err := mail.CreateReader(bytes.NewReader(raw)); err == nil || gomessage.IsUnknownCharset(err) {
		m.readHeader(&r.Header)
		m.readParts(r)
	} else {
		m.text = string(raw)
	}
	if m.from == nil {
		m.from = &netmail.Address{Address: from}
	}
	// A recipient who is in no header received a blind copy.
	for _, address := range to {
		written := slices.ContainsFunc(slices.Concat(m.to, m.cc, m.bcc), func(a *netmail.Address) bool {
			return strings.EqualFold(a.Address, address)
		})
		if !written {
			m.bcc = append(m.bcc, &netmail.Address{Address: address})
		}
	}
	m.index()
	return m
}

func (m *message) readHeader(h *mail.Header) {
	// An invalid field counts as absent.
	addresses := func(field string) []*netmail.Address {
		list, _ := h.AddressList(field)
		return list
	}
	if list := addresses("From"); len(list) > 0 {
		m.from = list[0]
	}
	m.to, m.cc, m.bcc, m.replyTo = addresses("To"), addresses("Cc"), addresses("Bcc"), addresses("Reply-To")
	m.subject, _ = h.Subject()
	m.messageID, _ = h.MessageID()
	if date, err := h.Date(); err == nil && !date.IsZero() {
		m.date = date
	}
}

func (m *message) readParts(r *mail.Reader) {
	for n := 1; ; n++ {
		p, err := r.NextPart()
		if err != nil && !gomessage.IsUnknownCharset(err) {
			return // The end, or a malformed part, which the source shows.
		}
		content, err := io.ReadAll(p.Body)
		if err != nil && len(content) == 0 {
			continue
		}
		m.add(n, p.Header, content)
	}
}

func (m *message) add(n int, header mail.PartHeader, content []byte) {
	kind, _, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		kind = "text/plain"
	}
	attachment, attached := header.(*mail.AttachmentHeader)
	switch {
	case !attached && kind == "text/plain":
		m.text += strings.ReplaceAll(string(content), "\r\n", "\n")
		return
	case !attached && kind == "text/html":
		m.html += string(content)
		return
	}
	p := part{PartID: strconv.Itoa(n), ContentType: kind, Size: len(content), content: content}
	p.ContentID = strings.Trim(header.Get("Content-Id"), "<>")
	if attached {
		p.FileName, _ = attachment.Filename() // It is empty if the header is malformed.
		m.attached = append(m.attached, p)
		return
	}
	m.inline = append(m.inline, p)
}

// index prepares the text for searches.
func (m *message) index() {
	join := func(lists ...[]*netmail.Address) string {
		var text strings.Builder
		for _, a := range slices.Concat(lists...) {
			fmt.Fprintf(&text, "%s <%s> ", a.Name, a.Address)
		}
		return strings.ToLower(text.String())
	}
	m.searchableByField = map[string]string{
		"to": join(m.to, m.bcc), "cc": join(m.cc), "bcc": join(m.bcc), "from": join([]*netmail.Address{m.from}),
		"subject": strings.ToLower(m.subject),
	}
	m.searchable = join(m.to, m.cc, m.bcc, []*netmail.Address{m.from}) + strings.ToLower(m.subject+" "+m.text+" "+m.html)
}

// field returns the text for a search in the field, in lower case.
func (m *message) field(name string) string {
	if name == "" {
		return m.searchable
	}
	return m.searchableByField[name]
}

var (
	unseen = regexp.MustCompile(`(?is)<(style|script|head)\b.*?</(style|script|head)>|<[^>]*>`)
	spaces = regexp.MustCompile(`\s+`)
)

const snippetLength = 250

// snippet returns the beginning of the visible text.
func (m *message) snippet() string {
	text := m.text
	if strings.TrimSpace(text) == "" {
		text = unseen.ReplaceAllString(m.html, " ")
	}
	runes := []rune(strings.TrimSpace(spaces.ReplaceAllString(text, " ")))
	if len(runes) > snippetLength {
		return string(runes[:snippetLength]) + "..."
	}
	return string(runes)
}
