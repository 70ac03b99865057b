package smtp

import (
	"context"
	"fmt"

	domain "github.com/headgate/headgate/services/email-service/internal/mail"
)

// Ping returns mail.ErrServerUnavailable while the mail server accepts no message: it
// cannot be reached, refuses the login, or refuses the sender. It sends nothing.
func (s *Sender) Ping(ctx context.Context) error {
	connection, err := s.client.DialToSMTPClientWithContext(ctx)
	if err != nil {
		return fmt.Errorf("%w: connect: %w", domain.ErrServerUnavailable, err)
	}
	defer connection.Close()
	if err := connection.Mail(s.from.Address); err != nil {
		return fmt.Errorf("%w: %w", domain.ErrServerUnavailable, err)
	}
	_ = connection.Quit() // An error here changes nothing.
	return nil
}
