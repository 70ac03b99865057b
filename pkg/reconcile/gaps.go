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
	Epoch     string
	Missing   SeqRange  // zero for an hour; up to maxSeq if nobody knows where it ends
	Lost      bool      // the producer cannot republish the range
	Hour      time.Time // whose checksums differ; zero for a range
	Published int64     // events in that hour
	Recorded  int64     // events in that hour
}

// ID names the gap for Accept.
func (g Gap) ID() string {
	id := numbers{producer: g.Producer, epoch: g.Epoch}.name()
	switch first, last := g.Missing.First, g.Missing.Last; {
	case first == 0:
		return id + "@" + g.Hour.Format(hourForm)
	case last == maxSeq:
		return fmt.Sprintf("%s:%d..", id, first)
	case first == last:
		return fmt.Sprintf("%s:%d", id, first)
	default:
		return fmt.Sprintf("%s:%d..%d", id, first, last)
	}
}

// hourForm is the form of an hour in the id of a gap.
const hourForm = "2006-01-02T15"

func (g Gap) String() string {
	id := g.ID() + "  "
	if first := g.Missing.First; first > 0 {
		text := fmt.Sprintf("%d events are missing", g.Missing.count())
		if g.Missing.count() == 1 {
			text = "1 event is missing"
		}
		if g.Lost {
			text += "; the producer does not have it any more"
		}
		return id + text
	}
	switch {
	case g.Published == g.Recorded:
		return id + fmt.Sprintf("recorded events differ from the %d published", g.Published)
	case g.Recorded > g.Published:
		return id + fmt.Sprintf("surplus: %s recorded, %d published", events(g.Recorded), g.Published)
	default:
		return id + fmt.Sprintf("%s recorded, %d published", events(g.Recorded), g.Published)
	}
}

func events(n int64) string {
	if n == 1 {
		return "1 event"
	}
	return fmt.Sprintf("%d events", n)
}

// Report is what Gaps found.
type Report struct {
	Gaps []Gap
	// Doubts are reasons why there may be gaps that Gaps cannot know of.
	Doubts []string
	// Notes are what an operator should know although nothing is missing.
	Notes []string
}

const gapsLimit = 10_000 // ranges of an epoch

// Gaps compares all records with the watermarks stored so far, at a cost that
// grows with the number of records. It leaves out hours before since. It reads one
// snapshot, so that neither new events nor a purge change its verdict meanwhile.
// producers are those that publish on topic. If one of them has never posted a watermark,
// that is a doubt.
func Gaps(ctx context.Context, db *postgres.Pool, topic event.Topic, producers []string, since time.Time) (report Report, err error) {
	err = db.TransactWith(ctx, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		report, err = gapsIn(ctx, tx, topic, producers, since)
		return err
	})
	return report, err
}

func gapsIn(ctx context.Context, db postgres.Querier, topic event.Topic, producers []string, since time.Time) (Report, error) {
	var report Report
	if err := report.addDoubts(ctx, db, topic, producers); err != nil {
		return Report{}, err
	}
	const query = `
		SELECT producer, epoch, first_seq, held_seq, published_seq, end_seq, end_unknown FROM epoch_watermarks
		WHERE topic = $1
		ORDER BY producer, epoch`
	rows, err := db.Query(ctx, query, topic)
	if err != nil {
		return Report{}, fmt.Errorf("read watermarks: %w", err)
	}
	type stored struct {
		numbers
		first, available, published, end int64
		endUnknown                       bool
	}
	watermarks, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (stored, error) {
		s := stored{numbers: numbers{topic: topic}}
		err := row.Scan(&s.producer, &s.epoch, &s.first, &s.available, &s.published, &s.end, &s.endUnknown)
		return s, err
	})
	if err != nil {
		return Report{}, fmt.Errorf("read watermarks: %w", err)
	}
	for _, w := range watermarks {
		missing, err := findMissing(ctx, db, w.numbers, SeqRange{w.first, w.end}, gapsLimit)
		if err != nil {
			return Report{}, err
		}
		available := SeqRange{max(w.available, 1), w.published}
		report.Gaps = append(report.Gaps, lost(w.gaps(within(missing, SeqRange{1, available.First - 1})))...)
		report.Gaps = append(report.Gaps, w.gaps(within(missing, available))...)
		report.Gaps = append(report.Gaps, lost(w.gaps(within(missing, SeqRange{max(available.First, available.Last+1), w.end})))...)
		if w.end > w.published {
			report.Notes = append(report.Notes, fmt.Sprintf("%s: the database of the producer was restored: it ends at event %d, but %d were published", w.name(), w.published, w.end))
		}
		if w.endUnknown {
			if err := report.doubtEnd(ctx, db, w.numbers, w.end); err != nil {
				return Report{}, err
			}
		}
		hours, err := findDifferingHours(ctx, db, w.numbers, since)
		if err != nil {
			return Report{}, err
		}
		report.Gaps = append(report.Gaps, hours...)
	}
	return report, nil
}

func (n numbers) gaps(ranges []SeqRange) []Gap {
	gaps := make([]Gap, len(ranges))
	for i, r := range ranges {
		gaps[i] = Gap{Producer: n.producer, Epoch: n.epoch, Missing: r}
	}
	return gaps
}

// lost marks gaps that the producer cannot republish.
func lost(gaps []Gap) []Gap {
	for i := range gaps {
		gaps[i].Lost = true
	}
	return gaps
}

// name names the numbers for an operator.
func (n numbers) name() string {
	if n.epoch == "" {
		return n.producer
	}
	return n.producer + "/" + n.epoch
}

// doubtEnd adds that nobody knows whether there were numbers after end, unless that was
// accepted. The consumer may have records of some, of which the producer does not know yet.
func (r *Report) doubtEnd(ctx context.Context, db postgres.Querier, n numbers, end int64) error {
	missing, err := findMissing(ctx, db, n, SeqRange{end + 1, maxSeq}, gapsLimit)
	if err != nil {
		return err
	}
	for _, gap := range n.gaps(missing) {
		if gap.Missing.Last < maxSeq {
			continue // It is a gap as soon as the producer knows of what came after it.
		}
		r.Doubts = append(r.Doubts, gap.ID()+"  the database of the producer was replaced while Redis was empty or older; nobody knows what came next")
	}
	return nil
}

// findDifferingHours returns the hours that all have a number or were accepted, and
// differ nevertheless.
func findDifferingHours(ctx context.Context, db postgres.Querier, n numbers, since time.Time) ([]Gap, error) {
	const query = `
		SELECT h.hour, h.count, h.sum::text, h.last_seq, coalesce(h.accepted_count, -1), coalesce(h.accepted_sum, 0)::text
		FROM epoch_checksums h
			JOIN epoch_watermarks w USING (topic, producer, epoch)
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND NOT purged AND h.last_seq <= w.consumed_seq AND hour >= @since
		ORDER BY hour`
	rows, err := db.Query(ctx, query, n.args(pgx.StrictNamedArgs{"since": max(0, since.Unix()/3600)}))
	if err != nil {
		return nil, fmt.Errorf("read published checksums: %w", err)
	}
	type stored struct {
		HourlyChecksum
		accepted HourlyChecksum
	}
	checksums, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (stored, error) {
		var h stored
		err := row.Scan(&h.Hour, &h.Count, &h.Sum, &h.LastSeq, &h.accepted.Count, &h.accepted.Sum)
		return h, err
	})
	if err != nil {
		return nil, fmt.Errorf("read published checksums: %w", err)
	}
	var gaps []Gap
	for _, published := range checksums {
		recorded, err := recordedChecksum(ctx, db, n, published.HourlyChecksum)
		if err != nil {
			return nil, err
		}
		if recorded.matches(published.HourlyChecksum) || recorded.matches(published.accepted) {
			continue
		}
		accepted, err := lacksAccepted(ctx, db, n, published.HourlyChecksum, recorded)
		if err != nil {
			return nil, err
		}
		if accepted {
			continue
		}
		gaps = append(gaps, Gap{
			Producer: n.producer, Epoch: n.epoch, Hour: time.Unix(published.Hour*3600, 0).UTC(),
			Published: published.Count, Recorded: recorded.Count,
		})
	}
	return gaps, nil
}
