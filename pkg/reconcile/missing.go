package reconcile

import (
	"context"
	"fmt"
	"maps"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// numbers are those of one epoch of a producer on a topic.
type numbers struct {
	topic           event.Topic
	producer, epoch string
}

func (n numbers) args(more pgx.StrictNamedArgs) pgx.StrictNamedArgs {
	args := pgx.StrictNamedArgs{"topic": n.topic, "producer": n.producer, "epoch": n.epoch}
	maps.Copy(args, more)
	return args
}

// findMissing returns the numbers in a range that have no record and were not
// accepted as missing. If that is limit ranges or more, there may be more after them.
func findMissing(ctx context.Context, db postgres.Querier, n numbers, in SeqRange, limit int) ([]SeqRange, error) {
	var missing []SeqRange
	for in.First <= in.Last && len(missing) < limit {
		want := limit - len(missing)
		ranges, err := findUnrecorded(ctx, db, n, in, want)
		if err != nil {
			return nil, err
		}
		if len(ranges) == 0 {
			break
		}
		accepted, err := acceptedRanges(ctx, db, n)
		if err != nil {
			return nil, err
		}
		missing = append(missing, subtract(ranges, accepted)...)
		if len(ranges) < want {
			break
		}
		in.First = ranges[len(ranges)-1].Last + 1
	}
	return missing, nil
}

// findUnrecorded returns the first numbers in a range that have no record, as at most
// limit ranges.
func findUnrecorded(ctx context.Context, db postgres.Querier, n numbers, in SeqRange, limit int) ([]SeqRange, error) {
	const query = `
		SELECT previous + 1, seq - 1
		FROM (
			SELECT seq, lag(seq, 1, @first::bigint - 1) OVER (ORDER BY seq) AS previous
			FROM (
				SELECT seq FROM consumed_events
				WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND seq BETWEEN @first AND @last
				UNION SELECT @last::bigint + 1
			) AS numbers
		) AS pairs
		WHERE seq > previous + 1
		ORDER BY 1
		LIMIT @limit`
	rows, err := db.Query(ctx, query, n.args(pgx.StrictNamedArgs{"first": in.First, "last": in.Last, "limit": limit}))
	if err != nil {
		return nil, fmt.Errorf("find missing sequence numbers: %w", err)
	}
	ranges, err := pgx.CollectRows(rows, scanRange)
	if err != nil {
		return nil, fmt.Errorf("find missing sequence numbers: %w", err)
	}
	return ranges, nil
}

func acceptedRanges(ctx context.Context, db postgres.Querier, n numbers) ([]SeqRange, error) {
	const query = `
		SELECT first_seq, last_seq FROM accepted_gaps
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch ORDER BY first_seq`
	rows, err := db.Query(ctx, query, n.args(nil))
	if err != nil {
		return nil, fmt.Errorf("read accepted gaps: %w", err)
	}
	ranges, err := pgx.CollectRows(rows, scanRange)
	if err != nil {
		return nil, fmt.Errorf("read accepted gaps: %w", err)
	}
	return ranges, nil
}

func scanRange(row pgx.CollectableRow) (r SeqRange, err error) {
	err = row.Scan(&r.First, &r.Last)
	return r, err
}

// subtract returns what is in ranges and not in removed. Both are in order and do not
// overlap.
func subtract(ranges, removed []SeqRange) []SeqRange {
	var left []SeqRange
	for _, r := range ranges {
		for len(removed) > 0 && removed[0].Last < r.First {
			removed = removed[1:]
		}
		for _, gone := range removed {
			if gone.First > r.Last {
				break
			}
			if gone.First > r.First {
				left = append(left, SeqRange{r.First, gone.First - 1})
			}
			r.First = gone.Last + 1
		}
		if r.First <= r.Last {
			left = append(left, r)
		}
	}
	return left
}

// within returns the parts of ranges that are in bounds.
func within(ranges []SeqRange, bounds SeqRange) []SeqRange {
	var parts []SeqRange
	for _, r := range ranges {
		if part := (SeqRange{max(r.First, bounds.First), min(r.Last, bounds.Last)}); part.First <= part.Last {
			parts = append(parts, part)
		}
	}
	return parts
}

func count(ranges []SeqRange) (n int64) {
	for _, r := range ranges {
		n += r.count()
	}
	return n
}
