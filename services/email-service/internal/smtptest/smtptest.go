// Package smtptest is a real SMTP server for tests, whose answers a test can script.
package smtptest

import (
	"errors"
	"io"
	"net"
	"slices"
	"sync"
	"testing"

	gosmtp "github.com/emersion/go-smtp"
)

// Server accepts every mail, unless a test scripts other answers. It is safe for
// concurrent use.
type Server struct {
	URL string // smtp://host:port

	mu         sync.Mutex
	rcptAnswer func(to string) error                      // nil accepts everything
	mailAnswer func() error                               // nil accepts everything
	dataAnswer func(conn *gosmtp.Conn, to []string) error // nil accepts everything
	accepted   []Mail
	limit      int // of connections; 0 is none
	open       []net.Conn
}

// Mail is a mail that the server has accepted.
type Mail struct {
	Helo string // by which the client greeted
	From string
	To   []string
	Data string
}

// New returns a server on a free port. It stops when the test ends.
func New(t *testing.T) *Server {
	t.Helper()
	return NewAt(t, "127.0.0.1:0")
}

// NewAt is New at an address.
func NewAt(t *testing.T, address string) *Server {
	t.Helper()
	s := &Server{}
	server := gosmtp.NewServer(s)
	server.Domain = "localhost"
	server.AllowInsecureAuth = true
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	s.URL = "smtp://" + listener.Addr().String()
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

// Limit makes the server refuse connections while it has as many as n.
func (s *Server) Limit(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = n
}

// Disconnect closes all connections.
func (s *Server) Disconnect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, conn := range s.open {
		conn.Close()
	}
	s.open = nil
}

// OnRcpt scripts the answer to RCPT.
func (s *Server) OnRcpt(answer func(to string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rcptAnswer = answer
}

// OnData scripts the answer to a mail that was received completely.
func (s *Server) OnData(answer func(conn *gosmtp.Conn, to []string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dataAnswer = answer
}

// OnMail scripts the answer to MAIL. Sessions call it one at a time.
func (s *Server) OnMail(answer func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mailAnswer = answer
}

// To returns the accepted mails whose only recipient is address.
func (s *Server) To(address string) []Mail {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []Mail
	for _, m := range s.accepted {
		if len(m.To) == 1 && m.To[0] == address {
			found = append(found, m)
		}
	}
	return found
}

// NewSession implements smtp.Backend.
func (s *Server) NewSession(conn *gosmtp.Conn) (gosmtp.Session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit > 0 && len(s.open) >= s.limit {
		return nil, &gosmtp.SMTPError{Code: 421, EnhancedCode: gosmtp.EnhancedCode{4, 7, 0}, Message: "too many connections"}
	}
	s.open = append(s.open, conn.Conn())
	return &session{server: s, conn: conn}, nil
}

type session struct {
	server *Server
	conn   *gosmtp.Conn
	mail   Mail
}

func (s *session) Reset() { s.mail = Mail{} }
func (s *session) Logout() error {
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.open = slices.DeleteFunc(s.server.open, func(conn net.Conn) bool { return conn == s.conn.Conn() })
	return nil
}

func (s *session) Mail(from string, _ *gosmtp.MailOptions) error {
	s.mail.Helo, s.mail.From = s.conn.Hostname(), from
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	if s.server.mailAnswer != nil {
		return s.server.mailAnswer()
	}
	return nil
}

func (s *session) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	s.server.mu.Lock()
	answer := s.server.rcptAnswer
	s.server.mu.Unlock()
	if answer != nil {
		if err := answer(to); err != nil {
			return err
		}
	}
	s.mail.To = append(s.mail.To, to)
	return nil
}

func (s *session) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	s.mail.Data = string(data)
	s.server.mu.Lock()
	answer := s.server.dataAnswer
	s.server.mu.Unlock()
	if answer != nil {
		if err := answer(s.conn, s.mail.To); err != nil {
			return err
		}
	}
	s.server.mu.Lock()
	defer s.server.mu.Unlock()
	s.server.accepted = append(s.server.accepted, s.mail)
	return nil
}
