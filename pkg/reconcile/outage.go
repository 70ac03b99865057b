package reconcile

import (
	"errors"
	"log/slog"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/service"
)

// newOutage logs that the rounds fail. That Redis or the database cannot be reached is
// logged by the client and the pool.
func newOutage(log *slog.Logger, peers string) *service.Outage {
	return service.NewOutage(service.OutageConfig{
		Log: log, Failing: "reconciliation with " + peers + " failed; retrying", Over: "reconciliation with " + peers + " resumed",
		Parts:    "failing",
		Reported: func(err error) bool { return errors.Is(err, bus.ErrUnavailable) || postgres.Disconnected(err) },
	})
}
