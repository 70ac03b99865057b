package backend

import (
	"context"
	"errors"
	"fmt"
	"os"

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
		{Name: "outbox forget", Usage: "forget CONSUMER: keep no events for a consumer group that is gone for good", Run: forget},
	}
}
