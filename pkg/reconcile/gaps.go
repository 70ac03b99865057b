package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// Gap is a range of sequence numbers without records, or an hour whose records
// differ from what the producer published.
type Gap struct {
	Producer  string
	Missing   SeqRange  // zero for an hour
	Hour      time.Time // whose checksums differ; zero for a range
	Published int64     // events in that hour
	Recorded  int64     // events in that hour
}

func (g Gap) String() string {
	if first, last := g.Missing.First, g.Missing.Last; first > 0 {
		if first == last {
			return fmt.Sprintf("%s: event %d is missing", g.Producer, first)
		}
		return fmt.Sprintf("%s: events %d to %d are missing (%d)", g.Producer, first, last, last-first+1)
	}
	at := g.Hour.Format("2006-01-02 15:04 MST")
	if g.Published == g.Recorded {
		return fmt.Sprintf("%s: hour from %s: recorded events differ from the %d published", g.Producer, at, g.Published)
	}
	return fmt.Sprintf("%s: hour from %s: %d events recorded, %d published", g.Producer, at, g.Recorded, g.Published)
}

// Report is what Gaps found.
type Report struct {
	Gaps []Gap
	// Reported is when each producer posted its last watermark. What it has
	// published since is not covered.
	Reported map[string]time.Time
}

const (
	gapsLimit = 10_000
	// hourDelay is how long after its end an hour is compared, so that its events
	// have been published and consumed.
	hourDelay = 5 * time.Minute
)

// currentHour returns the first hour since 1970 that cannot be compared yet.
func currentHour() int64 { return time.Now().Add(-hourDelay).Unix() / 3600 }

// Gaps compares all records with the watermarks stored so far, at a cost that
// grows with the number of records. It leaves out hours that are not over and
// hours before since.
func Gaps(ctx context.Context, db postgres.Querier, topic event.Topic, since time.Time) (Report, error) {
	const query = `SELECT producer, published_seq, reported_at FROM published_watermarks WHERE topic = $1 ORDER BY producer`
	rows, err := db.Query(ctx, query, topic)
	if err != nil {
		return Report{}, fmt.Errorf("read watermarks: %w", err)
	}
	watermarks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Watermark, error) {
		w := Watermark{Topic: topic}
		err := row.Scan(&w.Producer, &w.Seq, &w.At)
		return w, err
	})
	if err != nil {
		return Report{}, fmt.Errorf("read watermarks: %w", err)
	}
	report := Report{Reported: map[string]time.Time{}}
	for _, w := range watermarks {
		report.Reported[w.Producer] = w.At
		ranges, err := findMissing(ctx, db, w, 0, gapsLimit)
		if err != nil {
			return Report{}, err
		}
		for _, r := range ranges {
			report.Gaps = append(report.Gaps, Gap{Producer: w.Producer, Missing: r})
		}
		hours, err := findDifferingHours(ctx, db, w, since)
		if err != nil {
			return Report{}, err
		}
		report.Gaps = append(report.Gaps, hours...)
	}
	return report, nil
}

// findMissing returns the sequence numbers after the given one and up to the
// watermark that have no record, as at most limit ranges.
func findMissing(ctx context.Context, db postgres.Querier, w Watermark, after int64, limit int) ([]SeqRange, error) {
	const query = `
		SELECT previous + 1, seq - 1
		FROM (
			SELECT seq, lag(seq, 1, $3::bigint) OVER (ORDER BY seq) AS previous
			FROM (
				SELECT seq FROM consumed_events WHERE topic = $1 AND producer = $2 AND seq > $3 AND seq <= $4
				UNION SELECT $4 + 1
			) AS numbers
		) AS pairs
		WHERE seq > previous + 1
		ORDER BY 1
		LIMIT $5`
	if w.Seq <= after {
		return nil, nil
	}
	rows, err := db.Query(ctx, query, w.Topic, w.Producer, after, w.Seq, limit)
	if err != nil {
		return nil, fmt.Errorf("find missing sequence numbers: %w", err)
	}
	ranges, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r SeqRange, err error) {
		err = row.Scan(&r.First, &r.Last)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("find missing sequence numbers: %w", err)
	}
	return ranges, nil
}

func findDifferingHours(ctx context.Context, db postgres.Querier, w Watermark, since time.Time) ([]Gap, error) {
	const query = `
		SELECT hour, count, sum::text, last_seq FROM hourly_checksums
		WHERE topic = $1 AND producer = $2 AND last_seq <= $3 AND hour >= $4 AND hour < $5
		ORDER BY hour`
	rows, err := db.Query(ctx, query, w.Topic, w.Producer, w.Seq, max(0, since.Unix()/3600), currentHour())
	if err != nil {
		return nil, fmt.Errorf("read published checksums: %w", err)
	}
	checksums, err := pgx.CollectRows(rows, scanChecksum)
	if err != nil {
		return nil, fmt.Errorf("read published checksums: %w", err)
	}
	var gaps []Gap
	for _, published := range checksums {
		recorded, err := recordedChecksum(ctx, db, w, published.Hour)
		if err != nil {
			return nil, err
		}
		if !recorded.matches(published) {
			gaps = append(gaps, Gap{
				Producer: w.Producer, Hour: time.Unix(published.Hour*3600, 0).UTC(),
				Published: published.Count, Recorded: recorded.Count,
			})
		}
	}
	return gaps, nil
}

func scanChecksum(row pgx.CollectableRow) (HourlyChecksum, error) {
	var c HourlyChecksum
	err := row.Scan(&c.Hour, &c.Count, &c.Sum, &c.LastSeq)
	return c, err
}

// recordedChecksum returns the checksum of the records of a producer's events
// whose ids were made in an hour.
func recordedChecksum(ctx context.Context, db postgres.Querier, w Watermark, hour int64) (HourlyChecksum, error) {
	query := `
		SELECT count(*), coalesce(sum(` + HashSQL("event_id") + `), 0)::text, coalesce(max(seq), 0)
		FROM consumed_events
		WHERE topic = $1 AND producer = $2 AND event_id >= $3 AND event_id < $4`
	low, high := HourIDs(hour)
	c := HourlyChecksum{Hour: hour}
	if err := db.QueryRow(ctx, query, w.Topic, w.Producer, low, high).Scan(&c.Count, &c.Sum, &c.LastSeq); err != nil {
		return HourlyChecksum{}, fmt.Errorf("compute the checksum of recorded events: %w", err)
	}
	return c, nil
}
