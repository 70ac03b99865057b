package receipt

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// Gap is something that is missing, or does not agree with what the producer
// published.
type Gap struct {
	Producer    string
	First, Last int64     // numbers of which there is no receipt; 0 for an hour that differs
	Hour        time.Time // that differs
	Published   int64     // events in that hour
	Held        int64     // of them, receipts
}

func (g Gap) String() string {
	if g.First > 0 {
		if g.First == g.Last {
			return fmt.Sprintf("%s: event %d is missing", g.Producer, g.First)
		}
		return fmt.Sprintf("%s: events %d to %d are missing (%d)", g.Producer, g.First, g.Last, g.Last-g.First+1)
	}
	at := g.Hour.Format("2006-01-02 15:04 MST")
	if g.Published == g.Held {
		return fmt.Sprintf("%s: the hour of %s holds other events than were published", g.Producer, at)
	}
	return fmt.Sprintf("%s: the hour of %s holds %d events, %d were published", g.Producer, at, g.Held, g.Published)
}

// Report is what Gaps found.
type Report struct {
	Gaps []Gap
	// Reported says when each producer was last heard of; what it has published
	// since is not covered.
	Reported map[string]time.Time
}

const gapsLimit = 10_000

// Gaps counts every receipt anew and compares with what the producers have said
// so far, at a cost that grows with the number of receipts. Hours are left out
// that are not over, and those older than since.
func Gaps(ctx context.Context, db postgres.Querier, topic event.Topic, since time.Time) (Report, error) {
	const query = `SELECT producer, head, reported_at FROM ledgers WHERE topic = $1 ORDER BY producer`
	rows, err := db.Query(ctx, query, topic)
	if err != nil {
		return Report{}, fmt.Errorf("read the ledgers: %w", err)
	}
	ledgers, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (event.Ledger, error) {
		var l event.Ledger
		err := row.Scan(&l.Producer, &l.Head, &l.At)
		return l, err
	})
	if err != nil {
		return Report{}, fmt.Errorf("read the ledgers: %w", err)
	}
	report := Report{Reported: map[string]time.Time{}}
	for _, l := range ledgers {
		l.Topic = topic
		report.Reported[l.Producer] = l.At
		numbers, err := missingNumbers(ctx, db, l)
		if err != nil {
			return Report{}, err
		}
		hours, err := differingHours(ctx, db, l, since)
		if err != nil {
			return Report{}, err
		}
		report.Gaps = append(append(report.Gaps, numbers...), hours...)
	}
	return report, nil
}

func missingNumbers(ctx context.Context, db postgres.Querier, l event.Ledger) ([]Gap, error) {
	ranges, err := findGaps(ctx, db, l.Topic, l.Producer, 0, l.Head, gapsLimit)
	if err != nil {
		return nil, err
	}
	gaps := make([]Gap, len(ranges))
	for i, r := range ranges {
		gaps[i] = Gap{Producer: l.Producer, First: r[0], Last: r[1]}
	}
	return gaps, nil
}

func differingHours(ctx context.Context, db postgres.Querier, l event.Ledger, since time.Time) ([]Gap, error) {
	const query = `
		SELECT hour, count, sum::text, last_seq FROM ledger_hours
		WHERE topic = $1 AND producer = $2 AND last_seq <= $3 AND hour >= $4 AND hour < $5
		ORDER BY hour`
	over := time.Now().Add(-hourPatience).Unix() / 3600
	rows, err := db.Query(ctx, query, l.Topic, l.Producer, l.Head, max(0, since.Unix()/3600), over)
	if err != nil {
		return nil, fmt.Errorf("read the hours of the ledger: %w", err)
	}
	tallies, err := pgx.CollectRows(rows, scanTally)
	if err != nil {
		return nil, fmt.Errorf("read the hours of the ledger: %w", err)
	}
	var gaps []Gap
	for _, published := range tallies {
		held, err := countHour(ctx, db, l.Topic, l.Producer, published.Hour)
		if err != nil {
			return nil, err
		}
		if held.Count != published.Count || held.Sum != published.Sum {
			gaps = append(gaps, Gap{
				Producer: l.Producer, Hour: time.Unix(published.Hour*3600, 0).UTC(), Published: published.Count, Held: held.Count,
			})
		}
	}
	return gaps, nil
}
