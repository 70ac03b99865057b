package reconcile

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
)

// lacksAccepted reports whether the numbers that were accepted as missing explain why an
// hour has fewer records than published events.
//
// Numbers follow one another roughly as the hours do: a transaction that commits after
// the hour in which its events were made gets numbers among those of the next hour. So an
// hour may lack what was accepted among its own numbers and those of the hour before,
// less what the hour before lacks itself. What was accepted earlier explains nothing.
func lacksAccepted(ctx context.Context, db postgres.Querier, n numbers, published, recorded HourlyChecksum) (bool, error) {
	short := published.Count - recorded.Count
	if short <= 0 {
		return false, nil
	}
	accepted, err := acceptedRanges(ctx, db, n)
	if err != nil || len(accepted) == 0 {
		return false, err
	}
	among := SeqRange{published.LastSeq - published.Count + 1, published.LastSeq}
	before, found, err := checksumBefore(ctx, db, n, published)
	if err != nil {
		return false, err
	}
	if found {
		among.First = before.LastSeq - before.Count + 1
		recordedBefore, err := recordedChecksum(ctx, db, n, before)
		if err != nil {
			return false, err
		}
		short += max(0, before.Count-recordedBefore.Count)
	}
	without, err := countUnrecorded(ctx, db, n, within(accepted, among))
	return short <= without, err
}

// checksumBefore returns the published checksum whose last number is the highest below
// that of another hour; found is false if there is none or its records were purged.
func checksumBefore(ctx context.Context, db postgres.Querier, n numbers, published HourlyChecksum) (before HourlyChecksum, found bool, err error) {
	const query = `
		SELECT hour, count, sum::text, last_seq
		FROM (
			SELECT hour, count, sum, last_seq, purged FROM epoch_checksums
			WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND last_seq < @last
			ORDER BY last_seq DESC
			LIMIT 1) AS before
		WHERE NOT purged`
	rows, err := db.Query(ctx, query, n.args(pgx.StrictNamedArgs{"last": published.LastSeq}))
	if err != nil {
		return HourlyChecksum{}, false, fmt.Errorf("read the checksum of the hour before: %w", err)
	}
	before, err = pgx.CollectExactlyOneRow(rows, scanChecksum)
	if errors.Is(err, pgx.ErrNoRows) {
		return HourlyChecksum{}, false, nil
	}
	if err != nil {
		return HourlyChecksum{}, false, fmt.Errorf("read the checksum of the hour before: %w", err)
	}
	return before, true, nil
}

// countUnrecorded returns how many numbers in ranges have no record.
func countUnrecorded(ctx context.Context, db postgres.Querier, n numbers, ranges []SeqRange) (int64, error) {
	const query = `
		SELECT count(DISTINCT seq)
		FROM unnest(@first::bigint[], @last::bigint[]) AS r (first, last)
			JOIN consumed_events ON topic = @topic AND producer = @producer AND epoch = @epoch AND seq BETWEEN r.first AND r.last`
	if len(ranges) == 0 {
		return 0, nil
	}
	firsts, lasts := bounds(ranges)
	var recorded int64
	if err := db.QueryRow(ctx, query, n.args(pgx.StrictNamedArgs{"first": firsts, "last": lasts})).Scan(&recorded); err != nil {
		return 0, fmt.Errorf("count records of accepted numbers: %w", err)
	}
	return count(ranges) - recorded, nil
}

// bounds returns the first and the last numbers of ranges.
func bounds(ranges []SeqRange) (firsts, lasts []int64) {
	for _, r := range ranges {
		firsts, lasts = append(firsts, r.First), append(lasts, r.Last)
	}
	return firsts, lasts
}
