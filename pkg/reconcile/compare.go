package reconcile

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
)

// findings are what a comparison found about a producer.
type findings struct {
	missing     int64 // lost, and the producer can republish them
	unavailable int64 // lost, and the producer does not have them
	surplus     int64 // recorded, but not published according to the checksums
	request     RepublishRequest
	// complete are the epochs of which no number is missing and, after compareHours, no
	// hour differs.
	complete map[string]bool
}

// compare finds what the group lacks of the producer's events, and requests it.
func (c *Consumer) compare(ctx context.Context, w Watermark, position bus.Position) error {
	if old, err := c.outdated(ctx, w); err != nil || old || c.waits(w) {
		return err
	}
	c.compared[w.Producer] = time.Now()
	if err := c.store(ctx, w); err != nil {
		return err
	}
	proven, ok := c.bases.proven(w, position)
	missing := map[string][]SeqRange{}
	for _, e := range c.finished.rest(w) {
		ranges, err := c.advance(ctx, numbers{w.Topic, w.Producer, e.Epoch})
		if err != nil {
			return err
		}
		missing[e.Epoch] = ranges
	}
	forgotten, err := c.missingOfForgotten(ctx, w)
	if err != nil {
		return err
	}
	if !ok {
		return nil // Without proof nothing counts as lost. The last request stands.
	}
	if err := c.noteAnswer(ctx, proven, missing); err != nil {
		return err
	}
	found := findings{
		unavailable: forgotten, request: RepublishRequest{Group: c.cfg.Group, Answers: proven.Answers[c.cfg.Group]}, complete: map[string]bool{},
	}
	if err := c.addMissing(ctx, w, proven, missing, &found); err != nil {
		return err
	}
	if len(found.request.Ranges) == 0 {
		if err := c.compareHours(ctx, w, proven, &found); err != nil {
			return err
		}
		c.finished.add(w, found.complete)
	}
	c.metrics.set(w, found)
	if !w.hasEpochs() {
		found.request.CaughtUp = position.HandledUntil
	}
	return c.request(ctx, w.Producer, found.request)
}

// addMissing adds what the group lacks, by epoch, to what was found.
func (c *Consumer) addMissing(ctx context.Context, w, proven Watermark, missing map[string][]SeqRange, found *findings) error {
	lost := proven.byEpoch()
	for _, e := range c.finished.rest(w) {
		ranges := missing[e.Epoch]
		found.complete[e.Epoch] = len(ranges) == 0
		before, isProven := lost[e.Epoch]
		requestable := within(ranges, SeqRange{max(e.First, 1), min(e.Seq, before.Seq)})
		found.missing += count(requestable)
		if isProven {
			found.unavailable += count(within(ranges, SeqRange{1, e.First - 1})) + count(within(ranges, SeqRange{max(e.First, e.Seq+1), e.end()}))
		}
		if len(requestable) == 0 {
			continue
		}
		unfilled, err := c.unfilled(ctx, numbers{w.Topic, w.Producer, e.Epoch})
		if err != nil {
			return err
		}
		found.request.add(e.Epoch, subtract(requestable, unfilled))
	}
	return nil
}

// missingOfForgotten returns how many events are missing of the epochs that the
// producer's database does not know any more.
func (c *Consumer) missingOfForgotten(ctx context.Context, w Watermark) (missing int64, err error) {
	const query = `
		SELECT epoch FROM epoch_watermarks
		WHERE topic = $1 AND producer = $2 AND epoch <> ALL($3::text[]) AND consumed_seq < end_seq`
	if !w.hasEpochs() {
		return 0, nil
	}
	var known []string
	for _, e := range w.epochs() {
		known = append(known, e.Epoch)
	}
	rows, err := c.cfg.Database.Query(ctx, query, w.Topic, w.Producer, known)
	if err != nil {
		return 0, fmt.Errorf("read forgotten epochs of %s: %w", w.Producer, err)
	}
	epochs, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return 0, fmt.Errorf("read forgotten epochs of %s: %w", w.Producer, err)
	}
	for _, epoch := range epochs {
		ranges, err := c.advance(ctx, numbers{w.Topic, w.Producer, epoch})
		if err != nil {
			return 0, err
		}
		missing += count(ranges)
	}
	return missing, nil
}

// waits reports whether nothing new can be known of a producer: it has not answered the
// request yet, and the last comparison was not long ago.
func (c *Consumer) waits(w Watermark) bool {
	asked, ok := c.asked[w.Producer]
	return ok && w.Answers[c.cfg.Group] == asked.Answers && time.Since(c.compared[w.Producer]) < c.cfg.Interval
}

// advance returns the ranges of numbers that lack a record, and stores the number up
// to which there is none. Numbers below that are never compared again, so the cost is
// that of what is new.
func (c *Consumer) advance(ctx context.Context, n numbers) ([]SeqRange, error) {
	const read = `
		SELECT consumed_seq, end_seq, (
			SELECT count(*) FROM unfilled_ranges u WHERE (u.topic, u.producer, u.epoch) = (w.topic, w.producer, w.epoch))
		FROM epoch_watermarks w
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch`
	var consumed, end int64
	var unfilled int
	if err := c.cfg.Database.QueryRow(ctx, read, n.args(nil)).Scan(&consumed, &end, &unfilled); err != nil {
		return nil, fmt.Errorf("read consumed watermark: %w", err)
	}
	ranges, err := c.scan(ctx, n, SeqRange{consumed + 1, end}, requestLimit+unfilled)
	if err != nil {
		return nil, err
	}
	complete := max(consumed, end)
	if len(ranges) > 0 {
		complete = ranges[0].First - 1
	}
	const write = `
		UPDATE epoch_watermarks SET consumed_seq = @complete
		WHERE topic = @topic AND producer = @producer AND epoch = @epoch AND consumed_seq < @complete AND ` + databaseSQL + ` = @database`
	if _, err := c.cfg.Database.Exec(ctx, write, n.args(pgx.StrictNamedArgs{"complete": complete, "database": c.database})); err != nil {
		return nil, fmt.Errorf("store consumed watermark: %w", err)
	}
	return ranges, nil
}

// scanned is what was found missing up to a number.
type scanned struct {
	upTo    int64
	missing []SeqRange
}

// rescanLimit is how many ranges are looked at one by one.
const rescanLimit = 100

// scan returns the ranges of numbers that lack a record, at most limit of them. Of what an earlier scan has
// seen, it looks again only at what was missing, so that an event that stays missing
// does not make each round read everything after it.
func (c *Consumer) scan(ctx context.Context, n numbers, in SeqRange, limit int) ([]SeqRange, error) {
	before := c.scanned[n]
	if before.upTo < in.First || before.upTo > in.Last || len(before.missing) > rescanLimit {
		before = scanned{upTo: in.First - 1}
	}
	var missing []SeqRange
	for _, r := range append(within(before.missing, in), SeqRange{before.upTo + 1, in.Last}) {
		found, err := findMissing(ctx, c.cfg.Database, n, r, limit-len(missing))
		if err != nil {
			return nil, err
		}
		missing = append(missing, found...)
	}
	if len(missing) < limit {
		c.scanned[n] = scanned{upTo: in.Last, missing: missing}
	}
	return missing, nil
}

// consumedIn returns what a database has consumed of a topic, by producer and epoch.
func consumedIn(ctx context.Context, db postgres.Querier, topic event.Topic) (map[string]map[string]Consumed, error) {
	const query = `
		SELECT producer, epoch, consumed_seq, (
			SELECT coalesce(max(seq), w.consumed_seq) FROM consumed_events e
			WHERE e.topic = w.topic AND e.producer = w.producer AND e.epoch = w.epoch AND e.seq > w.consumed_seq)
		FROM epoch_watermarks w
		WHERE topic = $1`
	rows, err := db.Query(ctx, query, topic)
	if err != nil {
		return nil, fmt.Errorf("read consumed watermark: %w", err)
	}
	type row struct {
		producer, epoch string
		Consumed
	}
	all, err := pgx.CollectRows(rows, func(found pgx.CollectableRow) (row, error) {
		var r row
		err := found.Scan(&r.producer, &r.epoch, &r.Seq, &r.Seen)
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("read consumed watermark: %w", err)
	}
	producers := map[string]map[string]Consumed{}
	for _, r := range all {
		if producers[r.producer] == nil {
			producers[r.producer] = map[string]Consumed{}
		}
		producers[r.producer][r.epoch] = r.Consumed
	}
	return producers, nil
}
