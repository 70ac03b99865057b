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

	mu      sync.Mutex
	answer  func(to string) error                      // to RCPT; nil takes everything
	sender  func() error                               // to MAIL
	arrived func(conn *gosmtp.Conn, to []string) error // to the end of DATA
	letters []received
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
	return &dialogue{server: s, conn: conn}, nil
}

func (s *mailServer) script(answer func(to string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

// onArrival scripts the answer to a letter that has been received in full.
func (s *mailServer) onArrival(answer func(conn *gosmtp.Conn, to []string) error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived = answer
}

// onSender scripts the answer to MAIL. It is called by one dialogue at a time.
func (s *mailServer) onSender(answer func() error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sender = answer
}

func (s *mailServer) to(address string) []received {
	s.mu.Lock()
	defer s.mu.Unlock()
	var mine []received
	for _, l := range s.letters {
		if len(l.to) == 1 && l.to[0] == address {
			mine = append(mine, l)
		}
	}
	return mine
}

type dialogue struct {
	server *mailServer
	conn   *gosmtp.Conn
	letter received
}

func (d *dialogue) Reset()        { d.letter = received{} }
func (d *dialogue) Logout() error { return nil }
func (d *dialogue) Mail(from string, _ *gosmtp.MailOptions) error {
	d.letter.from = from
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	if d.server.sender != nil {
		return d.server.sender()
	}
	return nil
}

func (d *dialogue) Rcpt(to string, _ *gosmtp.RcptOptions) error {
	d.server.mu.Lock()
	answer := d.server.answer
	d.server.mu.Unlock()
	if answer != nil {
		if err := answer(to); err != nil {
			return err
		}
	}
	d.letter.to = append(d.letter.to, to)
	return nil
}

func (d *dialogue) Data(r io.Reader) error {
	data, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	d.letter.data = string(data)
	d.server.mu.Lock()
	arrived := d.server.arrived
	d.server.mu.Unlock()
	if arrived != nil {
		if err := arrived(d.conn, d.letter.to); err != nil {
			return err
		}
	}
	d.server.mu.Lock()
	defer d.server.mu.Unlock()
	d.server.letters = append(d.server.letters, d.letter)
	return nil
}
