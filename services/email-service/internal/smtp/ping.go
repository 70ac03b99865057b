package smtp

import (
	"context"
	"fmt"

	"github.com/wneessen/go-mail/smtp"

	domain "github.com/headgate/headgate/services/email-service/internal/mail"
)

// Ping returns mail.ErrServerUnavailable while the mail server accepts no message: it
// cannot be reached, refuses the login, or refuses the sender. It sends nothing. It uses an
// idle connection if there is one, because a server may refuse more connections than that.
func (s *Sender) Ping(ctx context.Context) error {
	for {
		connection, kept, err := s.connection(ctx)
		if err != nil {
			return err
		}
		err = tryMail(connection, s.from.Address)
		if err == nil {
			s.keep(connection)
			return nil
		}
		_ = connection.Close() // It cannot be used again.
		if !kept {
			return fmt.Errorf("%w: %w", domain.ErrServerUnavailable, err)
		}
		// The server may have closed the idle connection. A new one tells.
	}
}

// tryMail begins a message and drops it.
func tryMail(connection *smtp.Client, from string) error {
	if err := connection.Mail(from); err != nil {
		return fmt.Errorf("begin message: %w", err)
	}
	if err := connection.Reset(); err != nil {
		return fmt.Errorf("drop message: %w", err)
	}
	return nil
}
