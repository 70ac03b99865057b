package api_test

import (
	"errors"
	"io"
	"net"
	"sync"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
)

// mailServer is a real SMTP server whose answers a test can script.
type mailServer struct {
	url string

	mu         sync.Mutex
	rcptAnswer func(to string) error                      // nil accepts everything
	mailAnswer func() error                               // nil accepts everything
	dataAnswer func(conn *gosmtp.Conn, to []string) error // nil accepts everything
	accepted   []received
}

type received struct {
	from string
	to   []string
	data string
}

func newMailServer(t *testing.T) *mailServer {
	t.Helper()
	s := &mailServer{}
	server := gosmtp.NewServer(s)
	server.Domain = "localhost"
	server.AllowInsecureAuth = true
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "smtp://" + listener.Addr().String()
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); err != nil && !errors.Is(err, gosmtp.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		server.Close()
		<-done
	})
	return s
}

func (s *mailServer) NewSession(conn *gosmtp.Conn) (gosmtp.Session, error) {
	return &smtpSession{server: s, conn: conn}, nil
}

// onRcpt scripts the answer to RCPT.
func (s *mailServer) onRcpt(answer func(to string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcptAnswer = answer
}

// onData scripts the answer to a message that was received completely.
func (s *mailServer) onData(answer func(conn *gosmtp.Conn, to []string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dataAnswer = answer
}

// onMail scripts the answer to MAIL. Sessions call it one at a time.
func (s *mailServer) onMail(answer func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mailAnswer = answer
}

func (s *mailServer) to(address string) []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []received
	for _, r := range s.accepted {
		if len(r.to) == 1 && r.to[0] == address {
			found = append(found, r)
		}
	}
	return found
}

type smtpSession struct {
	server  *mailServer
	conn    *gosmtp.Conn
	message received
}

func (s *smtpSession) Reset()        { s.message = received{} }
func (s *smtpSession) Logout() error { return nil }
func (s *smtpSession) Mail(from string, _ *gosmtp.MailOptions) error {
	s.message.from = from
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.mailAnswer != nil {
		return s.server.mailAnswer()
	}
	return nil
}

func (s *smtpSession) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.server.mu.Lock()
	answer := s.server.rcptAnswer
	s.server.mu.Unlock()
	if answer != nil {
		if err := answer(to); err != nil {
			return err
		}
	}
	s.message.to = append(s.message.to, to)
	return nil
}

func (s *smtpSession) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.message.data = string(data)
	s.server.mu.Lock()
	answer := s.server.dataAnswer
	s.server.mu.Unlock()
	if answer != nil {
		if err := answer(s.conn, s.message.to); err != nil {
			return err
		}
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.accepted = append(s.server.accepted, s.message)
	return nil
}
