package reconcile

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
)

// Acceptance is an operator's decision that a gap stays.
type Acceptance struct {
	Topic  event.Topic
	Gap    Gap
	Reason string
	By     string
}

// ErrNotMissing says that the gap to be accepted does not exist.
var ErrNotMissing = errors.New("nothing is missing there")

// ParseGap returns the gap with an id as Gap.ID returns it.
func ParseGap(id string) (Gap, error) {
	malformed := fmt.Errorf("invalid gap %q: want PRODUCER:FIRST..LAST, PRODUCER:FIRST.. or PRODUCER@HOUR as gaps prints them", id)
	at := strings.LastIndexAny(id, ":@")
	if at <= 0 {
		return Gap{}, malformed
	}
	var g Gap
	g.Producer, g.Epoch, _ = strings.Cut(id[:at], "/")
	if id[at] == '@' {
		hour, err := time.ParseInLocation(hourForm, id[at+1:], time.UTC)
		if err != nil {
			return Gap{}, malformed
		}
		g.Hour = hour
		return g, nil
	}
	first, last, isRange := strings.Cut(id[at+1:], "..")
	switch {
	case !isRange:
		last = first
	case last == "":
		last = strconv.FormatInt(maxSeq, 10)
	}
	var faults [2]error
	g.Missing.First, faults[0] = strconv.ParseInt(first, 10, 64)
	g.Missing.Last, faults[1] = strconv.ParseInt(last, 10, 64)
	if errors.Join(faults[:]...) != nil || g.Missing.First < 1 || g.Missing.Last < g.Missing.First {
		return Gap{}, malformed
	}
	return g, nil
}

// Accept records, within tx, that a gap stays: it is no longer requested, and the
// consumed watermark passes it. It leaves out the numbers of the range that are not
// missing. A gap whose end nobody knows is no longer a doubt. The error wraps
// ErrNotMissing if nothing is missing there, or not everything was published up to the
// end of the range.
func Accept(ctx context.Context, tx pgx.Tx, a Acceptance) error {
	n := numbers{a.Topic, a.Gap.Producer, a.Gap.Epoch}
	if a.Gap.Missing.First == 0 {
		return acceptHour(ctx, tx, n, a.Gap.Hour)
	}
	// The lock keeps a purge from making a number that it deletes a missing one.
	const lowest = `
		SELECT first_seq FROM epoch_watermarks
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch
			AND (end_seq >= @last OR @last = @unknown AND end_unknown AND end_seq < @first)
		FOR UPDATE`
	in := a.Gap.Missing
	notMissing := fmt.Errorf("accept %s: %w", a.Gap.ID(), ErrNotMissing)
	var first int64
	err := tx.QueryRow(ctx, lowest, n.args(pgx.StrictNamedArgs{"first": in.First, "last": in.Last, "unknown": int64(maxSeq)})).Scan(&first)
	if errors.Is(err, pgx.ErrNoRows) {
		return notMissing
	}
	if err != nil {
		return fmt.Errorf("read watermark: %w", err)
	}
	in.First = max(in.First, first)
	accepted := 0
	for {
		missing, err := findMissing(ctx, tx, n, in, gapsLimit)
		if err != nil {
			return err
		}
		if len(missing) == 0 {
			break
		}
		if err := a.acceptRanges(ctx, tx, n, missing); err != nil {
			return err
		}
		accepted += len(missing)
		in.First = missing[len(missing)-1].Last + 1
	}
	if accepted == 0 {
		return notMissing
	}
	return nil
}

func (a Acceptance) acceptRanges(ctx context.Context, tx pgx.Tx, n numbers, ranges []SeqRange) error {
	const query = `
		INSERT INTO accepted_gaps (topic, producer, epoch, first_seq, last_seq, reason, accepted_by)
		SELECT @topic, @producer, @epoch, first, last, @reason, @by FROM unnest(@first::bigint[], @last::bigint[]) AS r (first, last)`
	firsts, lasts := bounds(ranges)
	args := n.args(pgx.StrictNamedArgs{"first": firsts, "last": lasts, "reason": a.Reason, "by": a.By})
	if _, err := tx.Exec(ctx, query, args); err != nil {
		return fmt.Errorf("accept %s: %w", a.Gap.ID(), err)
	}
	return nil
}

// acceptHour makes the published checksum of an hour that of its records.
func acceptHour(ctx context.Context, tx pgx.Tx, n numbers, at time.Time) error {
	const read = `
		SELECT hour, count, sum::text, last_seq FROM epoch_checksums
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND hour = @hour AND NOT purged
		FOR UPDATE`
	const write = `
		UPDATE epoch_checksums SET accepted_count = @count, accepted_sum = @sum::numeric, matched = true
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND hour = @hour`
	rows, err := tx.Query(ctx, read, n.args(pgx.StrictNamedArgs{"hour": at.Unix() / 3600}))
	if err != nil {
		return fmt.Errorf("read published checksum: %w", err)
	}
	published, err := pgx.CollectExactlyOneRow(rows, scanChecksum)
	if errors.Is(err, pgx.ErrNoRows) {
		return fmt.Errorf("accept the hour: %w", ErrNotMissing)
	}
	if err != nil {
		return fmt.Errorf("read published checksum: %w", err)
	}
	recorded, err := recordedChecksum(ctx, tx, n, published)
	if err != nil {
		return err
	}
	if recorded.matches(published) {
		return fmt.Errorf("accept the hour: %w", ErrNotMissing)
	}
	args := n.args(pgx.StrictNamedArgs{"hour": published.Hour, "count": recorded.Count, "sum": recorded.Sum})
	if _, err := tx.Exec(ctx, write, args); err != nil {
		return fmt.Errorf("accept the hour: %w", err)
	}
	return nil
}

func scanChecksum(row pgx.CollectableRow) (HourlyChecksum, error) {
	var c HourlyChecksum
	err := row.Scan(&c.Hour, &c.Count, &c.Sum, &c.LastSeq)
	return c, err
}
