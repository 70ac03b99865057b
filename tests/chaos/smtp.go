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

// letter is a mail that reached the end of DATA. Confirmed says that the sender
// was told so; if not, it has to try again.
type letter struct {
	MessageID string
	Recipient string
	At        time.Time
	Phase     string
	Confirmed bool
}

// manner is how the mail server behaves.
type manner int

const (
	obliging   manner = iota
	greets421         // at the greeting, and at MAIL on connections that are open
	refuses451        // at RCPT
	hangsUp           // after DATA and before the answer, once for each Message-ID
)

// bounce begins the addresses that no mail server takes.
const bounce = "bounce-"

// sink is the mail server: it keeps what it gets and can be told to misbehave.
// It is safe for concurrent use.
type sink struct {
	address string

	mu       sync.Mutex
	server   *smtp.Server
	served   chan struct{}
	manner   manner
	delay    time.Duration // before the answer to DATA
	phase    string
	letters  []letter
	arrived  map[string]bool // recipients whose mail was confirmed
	hungUp   map[string]bool // Message-IDs
	refused  int64
	greeters sync.WaitGroup
}

// mute keeps the server from telling of connections that broke, as they must here.
type mute struct{}

func (mute) Printf(string, ...any) {}
func (mute) Println(...any)        {}

func newSink(ctx context.Context) (*sink, error) {
	port, err := localserver.FreePort(ctx) // It must be free again after a pause.
	if err != nil {
		return nil, fmt.Errorf("open the mail server: %w", err)
	}
	s := &sink{address: loopback(port), arrived: map[string]bool{}, hungUp: map[string]bool{}}
	return s, s.open(ctx)
}

func (s *sink) url() string { return "smtp://" + s.address + "?starttls=off" }

// open listens, on the same port as before.
func (s *sink) open(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.address)
	if err != nil {
		return fmt.Errorf("open the mail server: %w", err)
	}
	s.address = listener.Addr().String()
	server := smtp.NewServer(s)
	server.Domain, server.AllowInsecureAuth = "localhost", true
	server.ErrorLog = mute{}
	served := make(chan struct{})
	s.mu.Lock()
	s.server, s.served = server, served
	s.mu.Unlock()
	go func() {
		defer close(served)
		_ = server.Serve(&gate{Listener: listener, sink: s}) // It ends when it is closed.
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

// gate turns callers away at the greeting when it is told to.
type gate struct {
	net.Listener
	sink *sink
}

// Accept implements net.Listener.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil || !g.sink.refuse(greets421) {
			return conn, err
		}
		g.sink.greeters.Go(func() {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second)) // Whether the caller hears it is the caller's affair.
			_, _ = io.WriteString(conn, "421 4.3.2 Come back later\r\n")
			_ = conn.Close()
		})
	}
}

// refuse reports whether the server behaves in that manner now, and counts it.
func (s *sink) refuse(m manner) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.manner != m {
		return false
	}
	s.refused++
	return true
}

func (s *sink) behave(m manner, delay time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.manner, s.delay = m, delay
}

func (s *sink) enter(phase string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phase, s.refused = phase, 0
}

// refusals returns how many commands were refused in this phase.
func (s *sink) refusals() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.refused
}

// has reports whether a mail to the recipient was confirmed.
func (s *sink) has(recipient string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.arrived[recipient]
}

// all returns every letter, in the order in which they came.
func (s *sink) all() []letter {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]letter(nil), s.letters...)
}

// repeated returns how many Message-IDs whose first letter came in the phase
// came again.
func (s *sink) repeated(phase string) int64 {
	first, again := map[string]string{}, map[string]bool{}
	for _, l := range s.all() {
		if _, seen := first[l.MessageID]; !seen {
			first[l.MessageID] = l.Phase
		} else if first[l.MessageID] == phase {
			again[l.MessageID] = true
		}
	}
	return int64(len(again))
}

// NewSession implements smtp.Backend.
func (s *sink) NewSession(conn *smtp.Conn) (smtp.Session, error) {
	return &dialogue{sink: s, conn: conn}, nil
}

// dialogue is one connection.
type dialogue struct {
	sink *sink
	conn *smtp.Conn
	to   string
}

func (d *dialogue) Reset()        {}
func (d *dialogue) Logout() error { return nil }

func (d *dialogue) Mail(string, *smtp.MailOptions) error {
	if d.sink.refuse(greets421) {
		return &smtp.SMTPError{Code: 421, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "Come back later"}
	}
	return nil
}

func (d *dialogue) Rcpt(to string, _ *smtp.RcptOptions) error {
	if strings.HasPrefix(to, bounce) {
		d.sink.mu.Lock()
		d.sink.refused++
		d.sink.mu.Unlock()
		return &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such mailbox"}
	}
	if d.sink.refuse(refuses451) {
		return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 7, 1}, Message: "Greylisted"}
	}
	d.to = to
	return nil
}

var errHungUp = errors.New("hung up")

func (d *dialogue) Data(r io.Reader) error {
	message, err := mail.ReadMessage(r)
	if err != nil {
		return fmt.Errorf("read mail: %w", err)
	}
	if _, err := io.Copy(io.Discard, message.Body); err != nil {
		return fmt.Errorf("read mail: %w", err)
	}
	if !d.sink.take(strings.Trim(message.Header.Get("Message-Id"), "<>"), d.to) {
		_ = d.conn.Conn().Close() // That is the fault.
		return errHungUp
	}
	d.sink.linger()
	return nil
}

// take keeps a letter and says whether its sender may be told.
func (s *sink) take(messageID, to string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	confirmed := s.manner != hangsUp || s.hungUp[messageID]
	if !confirmed {
		s.hungUp[messageID] = true
		s.refused++
	} else {
		s.arrived[to] = true
	}
	s.letters = append(s.letters, letter{MessageID: messageID, Recipient: to, At: time.Now(), Phase: s.phase, Confirmed: confirmed})
	return confirmed
}

func (s *sink) linger() {
	s.mu.Lock()
	delay := s.delay
	s.mu.Unlock()
	_ = pause(context.Background(), delay) // Nothing ends it.
}
