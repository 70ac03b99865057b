package reconcile

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// addDoubts adds why the watermarks may not tell everything.
func (r *Report) addDoubts(ctx context.Context, db postgres.Querier, topic event.Topic, producers []string) error {
	var checked bool
	if err := db.QueryRow(ctx, `SELECT `+partlyCheckedSQL(topic)).Scan(&checked); err != nil {
		return fmt.Errorf("read database check: %w", err)
	}
	if !checked {
		r.Doubts = append(r.Doubts, "this database was not compared with what the producers know since it was started or restored")
	}
	// A producer posts a new watermark even if it has published nothing. One that misses
	// a few may have published what nobody has read. A time in the future was written
	// before the clock went back. A watermark of a restored copy says nothing of what was
	// published after the copy was made, however young it is.
	const query = `
		SELECT producer, coalesce(extract(epoch FROM age), 0)::bigint, age IS NULL, coalesce(greatest(age, -age) > stale, false),
			coalesce(changed_at < (SELECT checked_at FROM database_checks WHERE topic = $1), false),
			EXISTS (SELECT FROM uncompared_producers u WHERE u.topic = $1 AND u.producer = w.producer)
		FROM (
			SELECT producer, max(changed_at) AS changed_at, now() - max(changed_at) AS age,
				greatest(4 * coalesce((array_agg(post_interval ORDER BY changed_at DESC))[1], interval '150 seconds'), interval '1 minute') AS stale
			FROM unnest($2::text[]) AS p (producer) FULL JOIN (SELECT * FROM epoch_watermarks WHERE topic = $1) AS known USING (producer)
			GROUP BY producer) AS w
		ORDER BY producer`
	rows, err := db.Query(ctx, query, topic, producers)
	if err != nil {
		return fmt.Errorf("read age of watermarks: %w", err)
	}
	type posted struct {
		producer   string
		seconds    int64
		never      bool
		stale      bool
		copied     bool // perhaps, with the database
		uncompared bool // with what the producer knows of the database
	}
	watermarks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w posted, err error) {
		err = row.Scan(&w.producer, &w.seconds, &w.never, &w.stale, &w.copied, &w.uncompared)
		return w, err
	})
	if err != nil {
		return fmt.Errorf("read age of watermarks: %w", err)
	}
	for _, w := range watermarks {
		age := (time.Duration(w.seconds) * time.Second).Abs()
		switch {
		case w.never:
			r.Doubts = append(r.Doubts, w.producer+": no watermark yet; what it has published is not checked")
		case w.uncompared:
			r.Doubts = append(r.Doubts, w.producer+": away since before this database was started or restored; not compared with what it knows")
		case w.stale:
			r.Doubts = append(r.Doubts, fmt.Sprintf("%s: no new watermark for %s; what was published since is not checked", w.producer, age))
		case w.copied:
			r.Doubts = append(r.Doubts, w.producer+": no new watermark since this database was started or restored")
		default:
			r.Notes = append(r.Notes, fmt.Sprintf("%s: compared with its watermark of %s ago", w.producer, age))
		}
	}
	return nil
}

// Notice says of which producers the database of a consumer of topic still lacks the
// comparison, so that work waits for them; nothing if it is checked or cannot be read. It is
// a notice of /readyz.
func Notice(ctx context.Context, db postgres.Querier, topic event.Topic) string {
	var checked, partly bool
	if err := db.QueryRow(ctx, `SELECT `+CheckedSQL(topic)+`, `+partlyCheckedSQL(topic)).Scan(&checked, &partly); err != nil || checked {
		return ""
	}
	if !partly {
		return "the database was started or restored; what must not be done twice waits until it is compared with what the producers know"
	}
	uncompared, err := uncomparedProducers(ctx, db, topic)
	if err != nil {
		return ""
	}
	return "the database was started or restored; what must not be done twice waits until it is compared with what these know, which are away: " +
		strings.Join(slices.Sorted(maps.Keys(uncompared)), ", ")
}
