package backend

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
)

// ProducerCommands returns the commands of a service with an outbox. schemas are all
// those of the service.
func ProducerCommands[C deadletter.Config](name string, schemas []postgres.Schema) []service.Command[C] {
	forget := func(ctx context.Context, cfg C, args []string) error {
		if len(args) != 1 {
			return errors.New("usage: " + name + " outbox forget CONSUMER")
		}
		db, err := postgres.OpenExisting(ctx, cfg.DatabaseConfig(), service.NewLogger(os.Stderr, name, cfg.CommonConfig()), schemas...)
		if err != nil {
			return err
		}
		defer db.Close()
		if err := outbox.Forget(ctx, db, args[0]); err != nil {
			return err
		}
		_, err = fmt.Fprintln(os.Stdout, "forgotten", args[0])
		return err
	}
	return []service.Command[C]{
		{Name: "event-key", Usage: "print the public key of EVENT_SIGNING_KEY, for EVENT_PUBLIC_KEYS", Bare: printEventKey(name)},
		{Name: "outbox forget", Usage: "forget CONSUMER: keep no events for a consumer group that is gone for good", Run: forget},
	}
}

// printEventKey returns a command that prints the public key of a service. It needs no other
// variable than EVENT_SIGNING_KEY.
func printEventKey(name string) func(context.Context, []string) error {
	return func(context.Context, []string) error {
		var cfg struct {
			service.Common
			bus.SigningKey
		}
		if err := service.Load(&cfg); err != nil {
			return fmt.Errorf("check config: %w", err)
		}
		signer, err := cfg.Signer(name)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(os.Stdout, signer.PublicKey())
		return err
	}
}
