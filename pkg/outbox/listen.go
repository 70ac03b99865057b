package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// listen turns NOTIFYs into wake-ups on a connection of its own until ctx ends. It returns
// at once if there is no connection that keeps its session: the relay polls.
func (r *Relay) listen(ctx context.Context, wake chan<- struct{}) {
	session, ok := r.db.Session()
	for ok && ctx.Err() == nil {
		err := r.listenOnce(ctx, session, wake)
		if ctx.Err() != nil {
			return
		}
		r.log.DebugContext(ctx, "outbox listener failed; reconnecting", "error", err.Error())
		r.sleep(ctx, pollInterval)
	}
}

func (r *Relay) listenOnce(ctx context.Context, session *pgx.ConnConfig, wake chan<- struct{}) error {
	conn, err := pgx.ConnectConfig(ctx, session)
	if err != nil {
		return fmt.Errorf("connect to listen: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return fmt.Errorf("wait for a notification: %w", err)
		}
		signal(wake)
	}
}
