package mailbox_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"net/url"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/deploy/local/internal/mailbox"
)

// box is a mailbox that is being served.
type box struct {
	t    *testing.T
	smtp string
	http string
}

func serve(t *testing.T) box {
	t.Helper()
	listen := func() net.Listener {
		l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	mail, web := listen(), listen()
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := mailbox.New().Serve(ctx, mail, web); err != nil {
			t.Errorf("Serve() = %v", err)
		}
	})
	t.Cleanup(func() {
		cancel()
		serving.Wait()
	})
	return box{t: t, smtp: mail.Addr().String(), http: "http://" + web.Addr().String()}
}

func (b box) send(text string, to ...string) {
	b.t.Helper()
	raw := strings.ReplaceAll(strings.TrimSpace(text), "\n", "\r\n") + "\r\n"
	if err := smtp.SendMail(b.smtp, nil, "bounce@example.com", to, []byte(raw)); err != nil {
		b.t.Fatalf("send: %v", err)
	}
}

func (b box) do(method, path, body string) (*http.Response, []byte) {
	b.t.Helper()
	req, err := http.NewRequestWithContext(b.t.Context(), method, b.http+path, strings.NewReader(body))
	if err != nil {
		b.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return res, data
}

type address struct{ Name, Address string }

type summary struct {
	ID, MessageID, Subject, Snippet string
	Read                            bool
	From                            address
	To, Cc, Bcc, ReplyTo            []address
	Size, Attachments               int
}

type listing struct {
	Total, Unread, Count, Start int
	MessagesCount               int `json:"messages_count"`
	Messages                    []summary
}

func (b box) list(path string) listing {
	b.t.Helper()
	res, data := b.do(http.MethodGet, path, "")
	var l listing
	if err := json.Unmarshal(data, &l); err != nil || res.StatusCode != http.StatusOK {
		b.t.Fatalf("GET %s = %d %s, %v", path, res.StatusCode, data, err)
	}
	return l
}

const multipart = `
From: Headgate <no-reply@headgate.local>
To: =?utf-8?q?Andr=C3=A9?= <andre@example.com>, second@example.com
Cc: copy@example.com
Reply-To: help@example.com
Subject: =?utf-8?b?QmVzdMOkdGlnZW4=?=
Message-ID: <one@headgate.local>
Date: Mon, 02 Nov 2026 10:00:00 +0000
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=mixed

--mixed
Content-Type: multipart/alternative; boundary=alt

--alt
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

Gr=C3=BC=C3=9Fe: https://example.com/verify?token=3Dabc
--alt
Content-Type: text/html; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

<p>Gr=FC=DFe <a href=3D"https://example.com/verify?token=3Dabc">verify</a></p>
--alt--
--mixed
Content-Type: application/pdf
Content-Disposition: attachment; filename=terms.pdf
Content-Transfer-Encoding: base64

JVBERg==
--mixed--
`

func TestMessageIsReadAsJSON(t *testing.T) {
	t.Parallel()
	b := serve(t)
	b.send(multipart, "andre@example.com", "second@example.com", "copy@example.com", "blind@example.com")

	l := b.list("/api/v1/messages")
	if l.Total != 1 || l.Unread != 1 || l.Count != 1 || l.MessagesCount != 1 || len(l.Messages) != 1 {
		t.Fatalf("list = %+v, want one unread message", l)
	}
	got := l.Messages[0]
	if got.Subject != "Bestätigen" || got.From != (address{"Headgate", "no-reply@headgate.local"}) || got.MessageID != "one@headgate.local" {
		t.Errorf("summary = %+v", got)
	}
	if len(got.To) != 2 || got.To[0] != (address{"André", "andre@example.com"}) || len(got.Cc) != 1 || len(got.ReplyTo) != 1 {
		t.Errorf("recipients = %+v", got)
	}
	if len(got.Bcc) != 1 || got.Bcc[0].Address != "blind@example.com" {
		t.Errorf("Bcc = %v, want the address that is only in the envelope", got.Bcc)
	}
	if got.Attachments != 1 || got.Size == 0 || !strings.HasPrefix(got.Snippet, "Grüße: https://") {
		t.Errorf("summary = %+v", got)
	}

	var detail struct {
		ID, Text, HTML, ReturnPath, Date string
		Attachments                      []struct {
			PartID, FileName, ContentType string
			Size                          int
		}
		Inline []any
	}
	_, data := b.do(http.MethodGet, "/api/v1/message/"+got.ID, "")
	if err := json.Unmarshal(data, &detail); err != nil {
		t.Fatalf("message = %s: %v", data, err)
	}
	if !strings.Contains(detail.Text, "Grüße: https://example.com/verify?token=abc") || !strings.Contains(detail.HTML, "<p>Grüße <a") {
		t.Errorf("Text = %q, HTML = %q", detail.Text, detail.HTML)
	}
	if detail.ReturnPath != "bounce@example.com" || detail.Date != "2026-11-02T10:00:00Z" || detail.Inline == nil {
		t.Errorf("message = %s", data)
	}
	if len(detail.Attachments) != 1 || detail.Attachments[0].FileName != "terms.pdf" || detail.Attachments[0].Size != 4 {
		t.Fatalf("attachments = %+v", detail.Attachments)
	}
	if _, pdf := b.do(http.MethodGet, "/api/v1/message/"+got.ID+"/part/"+detail.Attachments[0].PartID, ""); string(pdf) != "%PDF" {
		t.Errorf("part = %q, want the attachment", pdf)
	}
	if l := b.list("/api/v1/messages"); l.Unread != 0 || !l.Messages[0].Read {
		t.Errorf("after reading: %+v, want it marked as read", l)
	}
	if _, raw := b.do(http.MethodGet, "/api/v1/message/latest/raw", ""); !bytes.Contains(raw, []byte("Message-ID: <one@headgate.local>\r\n")) {
		t.Errorf("raw = %q", raw)
	}
}

func TestListIsPagedAndSearched(t *testing.T) {
	t.Parallel()
	b := serve(t)
	for i := range 60 {
		b.send(fmt.Sprintf("To: user%d@example.com\nSubject: mail %d\n\nhello %d", i, i, i), fmt.Sprintf("user%d@example.com", i))
	}
	for path, want := range map[string]struct {
		count, matches int
		first          string
	}{
		"/api/v1/messages":                                        {50, 60, "mail 59"},
		"/api/v1/messages?start=50":                               {10, 60, "mail 9"},
		"/api/v1/messages?limit=5&start=1":                        {5, 60, "mail 58"},
		"/api/v1/messages?start=100":                              {0, 60, ""},
		search(`to:"user7@example.com"`):                          {1, 1, "mail 7"},
		search(`to:user1 subject:"mail 19"`):                      {1, 1, "mail 19"},
		search(`hello 42`):                                        {1, 1, "mail 42"},
		search(`subject:"mail 4"`):                                {11, 11, "mail 49"},
		search(`from:bounce@`):                                    {50, 60, "mail 59"},
		search(`nothing:here`):                                    {0, 0, ""},
		search(`to:"user7@example.com" subject:"mail 8"`):         {0, 0, ""},
		"/api/v1/search?limit=2&query=" + url.QueryEscape("mail"): {2, 60, "mail 59"},
	} {
		l := b.list(path)
		first := ""
		if len(l.Messages) > 0 {
			first = l.Messages[0].Subject
		}
		if l.Total != 60 || l.Count != want.count || l.MessagesCount != want.matches || first != want.first {
			t.Errorf("GET %s = %d of %d of %d, first %q, want %+v", path, l.Count, l.MessagesCount, l.Total, first, want)
		}
	}
}

func search(words string) string { return "/api/v1/search?query=" + url.QueryEscape(words) }

func TestMessagesAreDeleted(t *testing.T) {
	t.Parallel()
	b := serve(t)
	for _, subject := range []string{"one", "two", "three"} {
		b.send("Subject: "+subject+"\n\nx", "a@example.com")
	}
	two := b.list(search("subject:two")).Messages[0].ID
	if res, _ := b.do(http.MethodDelete, "/api/v1/messages", `{"IDs":["`+two+`"]}`); res.StatusCode != http.StatusOK {
		t.Errorf("delete one = %d", res.StatusCode)
	}
	if l := b.list("/api/v1/messages"); l.Total != 2 {
		t.Errorf("%d messages left, want 2", l.Total)
	}
	if res, _ := b.do(http.MethodGet, "/api/v1/message/"+two, ""); res.StatusCode != http.StatusNotFound {
		t.Errorf("deleted message = %d, want 404", res.StatusCode)
	}
	if res, _ := b.do(http.MethodDelete, "/api/v1/messages", "nonsense"); res.StatusCode != http.StatusBadRequest {
		t.Errorf("delete nonsense = %d, want 400", res.StatusCode)
	}
	if res, _ := b.do(http.MethodDelete, "/api/v1/messages", ""); res.StatusCode != http.StatusOK {
		t.Errorf("delete all = %d", res.StatusCode)
	}
	if l := b.list("/api/v1/messages"); l.Total != 0 || l.Messages == nil {
		t.Errorf("list = %+v, want an empty one", l)
	}
}

func TestOldestMessagesAreDropped(t *testing.T) {
	t.Parallel()
	b := serve(t)
	client, err := smtp.Dial(b.smtp)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for i := range 1001 {
		if err := client.Mail("a@example.com"); err != nil {
			t.Fatal(err)
		}
		if err := client.Rcpt("b@example.com"); err != nil {
			t.Fatal(err)
		}
		w, err := client.Data()
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(w, "Subject: n%d.\r\n\r\nx\r\n", i)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if l := b.list("/api/v1/messages"); l.Total != 1000 {
		t.Errorf("%d messages, want 1000", l.Total)
	}
	if l := b.list(search("subject:n0.")); l.MessagesCount != 0 {
		t.Error("the oldest message was not dropped")
	}
}

func TestMalformedMessagesAreKept(t *testing.T) {
	t.Parallel()
	b := serve(t)
	for name, text := range map[string]string{
		"no header":       "just text",
		"bad boundary":    "Subject: x\nContent-Type: multipart/mixed; boundary=none\n\nnothing",
		"unknown charset": "Subject: x\nContent-Type: text/plain; charset=klingon\n\nqapla",
		"bad encoding":    "Subject: x\nContent-Transfer-Encoding: base64\n\n!!!!",
		"bad address":     "Subject: x\nFrom: <<>\nTo: ,,,\n\nx",
	} {
		b.send(text, "a@example.com")
		if _, raw := b.do(http.MethodGet, "/api/v1/message/latest/raw", ""); !strings.Contains(string(raw), strings.SplitN(text, "\n", 2)[0]) {
			t.Errorf("%s: source = %q", name, raw)
		}
	}
	if l := b.list("/api/v1/messages"); l.Total != 5 {
		t.Errorf("%d messages, want 5", l.Total)
	}
}

func TestTooLargeMessageIsRejected(t *testing.T) {
	t.Parallel()
	b := serve(t)
	text := "Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 900)+"\r\n", 12000)
	if err := smtp.SendMail(b.smtp, nil, "a@example.com", []string{"b@example.com"}, []byte(text)); err == nil {
		t.Error("a message of more than 10 MB was accepted")
	}
}

func TestPageIsSafe(t *testing.T) {
	t.Parallel()
	b := serve(t)
	b.send("Subject: x\nContent-Type: text/html\n\n<script>alert(1)</script><a href='https://example.com'>go</a>", "a@example.com")
	for path, want := range map[string]string{"/": "<!doctype html>", "/app.js": "pollEvery", "/style.css": "prefers-color-scheme", "/livez": "ok"} {
		res, body := b.do(http.MethodGet, path, "")
		policy := res.Header.Get("Content-Security-Policy")
		if res.StatusCode != http.StatusOK || !strings.Contains(string(body), want) || !strings.Contains(policy, "default-src 'none'") {
			t.Errorf("GET %s = %d, policy %q", path, res.StatusCode, policy)
		}
	}
	res, body := b.do(http.MethodGet, "/view/latest.html", "")
	policy := res.Header.Get("Content-Security-Policy")
	if !strings.Contains(policy, "sandbox allow-popups") || strings.Contains(policy, "allow-scripts") || !strings.Contains(string(body), `<base target="_blank">`) {
		t.Errorf("view has policy %q and body %s", policy, body)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, b.http+"/api/v1/messages", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "evil.example"
	res, err = http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("as evil.example: %d, want 403", res.StatusCode)
	}
}
