// Package smtp sends messages to a mail server.
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
	"strings"
	"time"

	gomail "github.com/wneessen/go-mail"
	"github.com/wneessen/go-mail/smtp"
	"golang.org/x/net/idna"

	domain "github.com/headgate/headgate/services/email-service/internal/mail"
)

// Server is the address of a mail server and how to connect to it.
type Server struct {
	Host     string
	Port     int
	Username string
	Password string
	Implicit bool // TLS from the first byte
	Policy   gomail.TLSPolicy
	Helo     string // the name of this machine in EHLO; the domain of the sender if empty
}

// ParseURL reads smtp://user:password@host:port?starttls=required, or
// smtps://. STARTTLS is required unless the host is this machine or starttls
// says opportunistic or off. A password is never sent to another machine without
// encryption. Errors do not contain the URL.
func ParseURL(text string) (Server, error) {
	u, err := url.Parse(text)
	if err != nil || u.Hostname() == "" || u.Path != "" && u.Path != "/" {
		return Server{}, errors.New("want smtp://user:password@host:port or smtps://…")
	}
	host, err := domain.ASCIIName(u.Hostname())
	if err != nil {
		return Server{}, fmt.Errorf("want a valid host: %w", err)
	}
	s := Server{Host: host, Policy: gomail.TLSMandatory, Port: 587}
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
	query, err := url.ParseQuery(u.RawQuery) //nolint:forbidigo // Its error is not dropped.
	if err != nil || len(query) > 1 || len(query) == 1 && len(query["starttls"]) != 1 {
		return Server{}, errors.New("want no option but starttls, once")
	}
	switch query.Get("starttls") {
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

// HeloName returns the name of this machine for EHLO (RFC 5321, 4.1.1.1): name, or
// senderDomain if it is empty. It is a domain, or an IP address in brackets.
func HeloName(name, senderDomain string) (string, error) {
	if name == "" {
		return senderDomain, nil
	}
	if literal, ok := strings.CutPrefix(name, "["); ok {
		literal, ok = strings.CutSuffix(literal, "]")
		if ip := net.ParseIP(strings.TrimPrefix(literal, "IPv6:")); !ok || ip == nil {
			return "", errors.New("want a name such as mail.example.com, or [192.0.2.1]")
		}
		return name, nil
	}
	ascii, err := idna.Lookup.ToASCII(strings.TrimSuffix(name, "."))
	if err != nil || ascii == "" || net.ParseIP(ascii) != nil {
		return "", errors.New("want a name such as mail.example.com, or [192.0.2.1]")
	}
	return ascii, nil
}

// Sender implements mail.Sender on connections that it keeps open. It is safe
// for concurrent use.
type Sender struct {
	from    *mail.Address
	timeout time.Duration
	client  *gomail.Client
	idle    chan *smtp.Client
}

var _ domain.Sender = (*Sender)(nil)

// New returns a sender that keeps at most idle connections open. The timeout applies to
// connecting and to each message.
func New(server Server, from string, timeout time.Duration, idle int) (*Sender, error) {
	address, err := domain.ParseSender(from)
	if err != nil {
		return nil, fmt.Errorf("read the sender's address: %w", err)
	}
	helo, err := HeloName(server.Helo, domain.DomainOf(address))
	if err != nil {
		return nil, fmt.Errorf("read the name for EHLO: %w", err)
	}
	options := []gomail.Option{
		gomail.WithHELO(helo), gomail.WithPort(server.Port), gomail.WithTimeout(timeout), gomail.WithTLSPolicy(server.Policy),
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
	return &Sender{from: address, timeout: timeout, client: client, idle: make(chan *smtp.Client, idle)}, nil
}

// Send implements mail.Sender. It returns as soon as the server has answered and leaves
// the connection open for the next message.
func (s *Sender) Send(ctx context.Context, m domain.Message) error {
	message, err := s.compose(m)
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
		_ = connection.Close() // It cannot be used again.
		fault, ok := errors.AsType[*gomail.SendError](err)
		if kept && ok && fault.Reason == gomail.ErrConnCheck {
			continue // The server closed an idle connection; nothing was sent.
		}
		return classify(err, fault, m.To)
	}
}

// serviceNotAvailable is the reply of a server that is shutting down, RFC 5321
// section 4.2.3.
const serviceNotAvailable = 421

// classify says why the server did not accept a message. A rejected sender address is
// a fault of our configuration, not of the message. A connection that broke while the
// message was being sent may have been broken by this message, so it counts as deferred
// and does not block the others.
func classify(err error, fault *gomail.SendError, to string) error {
	err = masked(err, to)
	switch {
	case fault == nil:
		return &domain.DeferredError{Err: err}
	case fault.Reason == gomail.ErrSMTPMailFrom, fault.Reason == gomail.ErrConnCheck, fault.ErrorCode() == serviceNotAvailable:
		return fmt.Errorf("%w: %w", domain.ErrServerUnavailable, err)
	case fault.ErrorCode() >= 500:
		return &domain.PermanentlyRejectedError{Err: err}
	}
	return &domain.DeferredError{Err: err}
}

// masked hides the recipient in the answer of the server: errors are logged.
func masked(err error, to string) error {
	// A server may repeat the address in another case.
	address := regexp.MustCompile("(?i)" + regexp.QuoteMeta(to))
	return errors.New("send: " + address.ReplaceAllLiteralString(err.Error(), domain.Mask(to)))
}

func (s *Sender) compose(message domain.Message) (*gomail.Msg, error) {
	m := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	m.FromMailAddress(s.from)
	if err := m.To(message.To); err != nil {
		return nil, &domain.PermanentlyRejectedError{Err: fmt.Errorf("read the recipient's address: %w", err)}
	}
	m.Subject(message.Subject)
	m.SetMessageIDWithValue(message.MessageID)
	m.SetDateWithValue(message.Date)
	m.SetGenHeader("Auto-Submitted", "auto-generated")
	m.SetGenHeader("X-Entity-Ref-ID", message.EventID)
	m.SetBodyString(gomail.TypeTextPlain, message.Text)
	m.AddAlternativeString(gomail.TypeTextHTML, message.HTML)
	return m, nil
}

// connection returns an idle connection, or a new one if there is none.
func (s *Sender) connection(ctx context.Context) (connection *smtp.Client, kept bool, err error) {
	select {
	case connection = <-s.idle:
		// The deadline of its last message may have passed. If it is broken, its next
		// command fails.
		_ = connection.UpdateDeadline(s.timeout)
		return connection, true, nil
	default:
	}
	connection, err = s.client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return nil, false, fmt.Errorf("%w: connect: %w", domain.ErrServerUnavailable, err)
	}
	return connection, false, nil
}

func (s *Sender) keep(connection *smtp.Client) {
	select {
	case s.idle <- connection:
	default:
		_ = connection.Quit() // The message was accepted; an error here changes nothing.
	}
}

// Close closes the idle connections. Send must not be running.
func (s *Sender) Close() {
	for {
		select {
		case connection := <-s.idle:
			_ = connection.Quit() // An error here changes nothing.
		default:
			return
		}
	}
}
