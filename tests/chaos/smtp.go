package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/mail"
	"strings"
	"sync"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/headgate/headgate/pkg/localserver"
)

// receivedMail is a mail that was received completely. Confirmed says that the server
// confirmed it to the sender; if not, the sender has to retry.
type receivedMail struct {
	MessageID string
	Recipient string
	At        time.Time
	Phase     string
	Confirmed bool
}

// behavior is the behavior of the mail server.
type behavior int

const (
	accepts      behavior = iota
	greets421             // at the greeting, and at MAIL on open connections
	refuses451            // at RCPT
	hangsUp               // closes the connection before the answer to DATA, once for each Message-ID
	rejectsLater          // answers 550 to the addresses with the prefix later
)

// bounce is the prefix of the addresses that the mail server rejects permanently.
const bounce = "bounce-"

// later is the prefix of the addresses that the mail server rejects until it is told to
// accept them.
const later = "later-"

// sink is the mail server. It keeps the received mails, and its behavior can be changed. It
// is safe for concurrent use.
type sink struct {
	address string

	mu       sync.Mutex
	server   *smtp.Server
	served   chan struct{}
	behavior behavior
	delay    time.Duration // before the answer to DATA
	phase    string
	received []receivedMail
	arrived  map[string]bool // recipients whose mail was confirmed
	hungUp   map[string]bool // Message-IDs
	refused  int64
	greeters sync.WaitGroup
}

// discardSMTPLog keeps the server from logging broken connections, which are intended here.
type discardSMTPLog struct{}

func (discardSMTPLog) Printf(string, ...any) {}
func (discardSMTPLog) Println(...any)        {}

func newSink(ctx context.Context) (*sink, error) {
	port, err := localserver.FreePort(ctx) // The server listens on the same port again after an outage.
	if err != nil {
		return nil, fmt.Errorf("open the mail server: %w", err)
	}
	s := &sink{address: loopback(port), arrived: map[string]bool{}, hungUp: map[string]bool{}}
	return s, s.open(ctx)
}

func (s *sink) url() string { return "smtp://" + s.address + "?starttls=off" }

// open starts to listen, on the same port as before.
func (s *sink) open(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("open the mail server: %w", err)
	}
	s.address = listener.Addr().String()
	server := smtp.NewServer(s)
	server.Domain, server.AllowInsecureAuth = "localhost", true
	server.ErrorLog = discardSMTPLog{}
	served := make(chan struct{})
	s.mu.Lock()
	s.server, s.served = server, served
	s.mu.Unlock()
	go func() {
		defer close(served)
		_ = server.Serve(&greetingListener{Listener: listener, sink: s}) // It returns when the server is closed.
	}()
	return nil
}

// close closes the port and every connection.
func (s *sink) close() error {
	s.mu.Lock()
	server, served := s.server, s.served
	s.server = nil
	s.mu.Unlock()
	if server == nil {
		return nil
	}
	err := server.Close()
	<-served
	s.greeters.Wait()
	if errors.Is(err, smtp.ErrServerClosed) {
		return nil
	}
	return err
}

// greetingListener answers 421 at the greeting if the server has that behavior.
type greetingListener struct {
	net.Listener
	sink *sink
}

// Accept implements net.Listener.
func (l *greetingListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil || !l.sink.refuse(greets421) {
			return conn, err
		}
		l.sink.greeters.Go(func() {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // The client may have gone.
			_, _ = io.WriteString(conn, "421 4.3.2 Come back later\r\n")
			_ = conn.Close()
		})
	}
}

// refuse says whether the server has that behavior now, and counts it.
func (s *sink) refuse(b behavior) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.behavior != b {
		return false
	}
	s.refused++
	return true
}

func (s *sink) behave(b behavior, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.behavior, s.delay = b, delay
}

func (s *sink) enter(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.refused = phase, 0
}

// refusals returns the number of refused commands in this phase.
func (s *sink) refusals() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// has says whether a mail to the recipient was confirmed.
func (s *sink) has(recipient string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrived[recipient]
}

// all returns the received mails in the order of their arrival.
func (s *sink) all() []receivedMail {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]receivedMail(nil), s.received...)
}

// repeated returns the number of Message-IDs that were first received in the phase and
// then again.
func (s *sink) repeated(phase string) int64 {
	first, again := map[string]string{}, map[string]bool{}
	for _, m := range s.all() {
		if _, seen := first[m.MessageID]; !seen {
			first[m.MessageID] = m.Phase
		} else if first[m.MessageID] == phase {
			again[m.MessageID] = true
		}
	}
	return int64(len(again))
}

// NewSession implements smtp.Backend.
func (s *sink) NewSession(conn *smtp.Conn) (smtp.Session, error) {
	return &smtpSession{sink: s, conn: conn}, nil
}

// smtpSession is one connection.
type smtpSession struct {
	sink *sink
	conn *smtp.Conn
	to   string
}

func (c *smtpSession) Reset()        {}
func (c *smtpSession) Logout() error { return nil }

func (c *smtpSession) Mail(string, *smtp.MailOptions) error {
	if c.sink.refuse(greets421) {
		return &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "Come back later"}
	}
	return nil
}

func (c *smtpSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, bounce) {
		c.sink.mu.Lock()
		c.sink.refused++
		c.sink.mu.Unlock()
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox"}
	}
	if strings.HasPrefix(to, later) && c.sink.refuse(rejectsLater) {
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox yet"}
	}
	if c.sink.refuse(refuses451) {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "Greylisted"}
	}
	c.to = to
	return nil
}

var errHungUp = errors.New("connection closed")

func (c *smtpSession) Data(r io.Reader) error {
	message, err := mail.ReadMessage(r)
	if err != nil {
		return fmt.Errorf("read mail: %w", err)
	}
	if _, err := io.Copy(io.Discard, message.Body); err != nil {
		return fmt.Errorf("read mail: %w", err)
	}
	if !c.sink.receive(strings.Trim(message.Header.Get("Message-Id"), "<>"), c.to) {
		_ = c.conn.Conn().Close() // This is the fault.
		return errHungUp
	}
	c.sink.waitDelay()
	return nil
}

// receive keeps a mail and says whether to confirm it.
func (s *sink) receive(messageID, to string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	confirmed := s.behavior != hangsUp || s.hungUp[messageID]
	if !confirmed {
		s.hungUp[messageID] = true
		s.refused++
	} else {
		s.arrived[to] = true
	}
	s.received = append(s.received, receivedMail{MessageID: messageID, Recipient: to, At: time.Now(), Phase: s.phase, Confirmed: confirmed})
	return confirmed
}

func (s *sink) waitDelay() {
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	_ = pause(context.Background(), delay) // Nothing ends it.
}
