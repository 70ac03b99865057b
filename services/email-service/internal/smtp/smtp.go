// Package smtp hands letters to a mail server.
package smtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"net/url"
	"regexp"
	"strconv"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"

	domain "github.com/headgate/headgate/services/email-service/internal/mail"
)

// Server is where and how mail is handed over.
type Server struct {
	Host     string
	Port     int
	Username string
	Password string
	Implicit bool // TLS from the first byte
	Policy   gomail.TLSPolicy
}

// ParseURL reads smtp://user:password@host:port?starttls=required, or
// smtps://. STARTTLS is required unless the host is this machine or starttls
// says opportunistic or off; a password never goes over a plain connection to
// another machine. Errors do not show the URL.
func ParseURL(text string) (Server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
		return Server{}, errors.New("want smtp://user:password@host:port or smtps://…")
	}
	s := Server{Host: u.Hostname(), Policy: gomail.TLSMandatory, Port: 587}
	local := s.Host == "localhost"
	if ip := net.ParseIP(s.Host); ip != nil && ip.IsLoopback() {
		local = true
	}
	if local {
		s.Policy = gomail.TLSOpportunistic
	}
	switch u.Scheme {
	case "smtp":
	case "smtps":
		s.Implicit, s.Port = true, 465
	default:
		return Server{}, errors.New("want smtp:// or smtps://")
	}
	if u.Port() != "" {
		if s.Port, err = strconv.Atoi(u.Port()); err != nil || s.Port < 1 || s.Port > 65535 {
			return Server{}, errors.New("want a port from 1 to 65535")
		}
	}
	switch u.Query().Get("starttls") {
	case "":
	case "required":
		s.Policy = gomail.TLSMandatory
	case "opportunistic":
		s.Policy = gomail.TLSOpportunistic
	case "off":
		s.Policy = gomail.NoTLS
	default:
		return Server{}, errors.New("want starttls=required, opportunistic or off")
	}
	s.Username = u.User.Username()
	s.Password, _ = u.User.Password()
	if s.Username != "" && !local && !s.Implicit && s.Policy != gomail.TLSMandatory {
		return Server{}, errors.New("a password needs smtps:// or starttls=required")
	}
	return s, nil
}

// Sender implements mail.Sender on connections that it keeps open. It is safe
// for concurrent use.
type Sender struct {
	from   *mail.Address
	client *gomail.Client
	idle   chan *smtp.Client
}

var _ domain.Sender = (*Sender)(nil)

// New returns a sender that keeps at most idle connections open. timeout is for
// connecting, and again for each letter.
func New(server Server, from string, timeout time.Duration, idle int) (*Sender, error) {
	address, err := mail.ParseAddress(from)
	if err != nil {
		return nil, fmt.Errorf("read the sender's address: %w", err)
	}
	options := []gomail.Option{
		gomail.WithPort(server.Port), gomail.WithTimeout(timeout), gomail.WithTLSPolicy(server.Policy),
		gomail.WithTLSConfig(&tls.Config{ServerName: server.Host, MinVersion: tls.VersionTLS12}),
		// A successful DATA resets the dialogue; a failed one ends the connection.
		gomail.WithoutRset(),
	}
	if server.Implicit {
		options = append(options, gomail.WithSSL())
	}
	if server.Username != "" {
		options = append(options, gomail.WithUsername(server.Username), gomail.WithPassword(server.Password),
			gomail.WithSMTPAuth(gomail.SMTPAuthAutoDiscover))
	}
	client, err := gomail.NewClient(server.Host, options...)
	if err != nil {
		return nil, fmt.Errorf("make SMTP client: %w", err)
	}
	return &Sender{from: address, client: client, idle: make(chan *smtp.Client, idle)}, nil
}

// Send implements mail.Sender. It returns as soon as the server has answered:
// what is polite but not needed happens later.
func (s *Sender) Send(ctx context.Context, letter domain.Letter) error {
	message, err := s.compose(letter)
	if err != nil {
		return err
	}
	for {
		connection, kept, err := s.connection(ctx)
		if err != nil {
			return err
		}
		err = s.client.SendWithSMTPClient(connection, message)
		if err == nil {
			s.keep(connection)
			return nil
		}
		_ = connection.Close() // It is of no use any more.
		fault, ok := errors.AsType[*gomail.SendError](err)
		if kept && ok && fault.Reason == gomail.ErrConnCheck {
			continue // The server hung up on an idle connection; nothing was sent.
		}
		return classify(err, fault, letter.To)
	}
}

// serviceNotAvailable is the reply of a server that is shutting down, RFC 5321
// section 4.2.3.
const serviceNotAvailable = 421

// classify says whose fault it is that a letter was not taken. A refused sender
// is our configuration's, not the letter's. A connection that broke while the
// letter was on its way may be the letter's, so it must not hold up the others.
func classify(err error, fault *gomail.SendError, to string) error {
	err = masked(err, to)
	switch {
	case fault == nil:
		return &domain.PutOff{Err: err}
	case fault.Reason == gomail.ErrSMTPMailFrom, fault.Reason == gomail.ErrConnCheck, fault.ErrorCode() == serviceNotAvailable:
		return fmt.Errorf("%w: %w", domain.ErrAway, err)
	case fault.ErrorCode() >= 500:
		return &domain.Rejected{Err: err}
	}
	return &domain.PutOff{Err: err}
}

// masked hides the recipient in what the server said: errors get into logs.
func masked(err error, to string) error {
	// Servers may answer in another case than they were asked.
	address := regexp.MustCompile("(?i)" + regexp.QuoteMeta(to))
	return errors.New("send: " + address.ReplaceAllLiteralString(err.Error(), domain.Mask(to)))
}

func (s *Sender) compose(letter domain.Letter) (*gomail.Msg, error) {
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	m.FromMailAddress(s.from)
	if err := m.To(letter.To); err != nil {
		return nil, &domain.Rejected{Err: fmt.Errorf("read the recipient's address: %w", err)}
	}
	m.Subject(letter.Subject)
	m.SetMessageIDWithValue(letter.MessageID)
	m.SetDateWithValue(letter.Date)
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetGenHeader("X-Entity-Ref-ID", letter.EventID)
	m.SetBodyString(gomail.TypeTextPlain, letter.Text)
	m.AddAlternativeString(gomail.TypeTextHTML, letter.HTML)
	return m, nil
}

func (s *Sender) connection(ctx context.Context) (connection *smtp.Client, kept bool, err error) {
	select {
	case connection = <-s.idle:
		return connection, true, nil
	default:
	}
	connection, err = s.client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("%w: connect: %w", domain.ErrAway, err)
	}
	return connection, false, nil
}

func (s *Sender) keep(connection *smtp.Client) {
	select {
	case s.idle <- connection:
	default:
		_ = connection.Quit() // The mail is out; how the farewell ends does not matter.
	}
}

// Close says farewell on the connections that are open. Nobody may be sending.
func (s *Sender) Close() {
	for {
		select {
		case connection := <-s.idle:
			_ = connection.Quit() // How the farewell ends does not matter.
		default:
			return
		}
	}
}
