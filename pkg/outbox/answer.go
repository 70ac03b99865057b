package outbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
)

const (
	// answerRows and answerTime bound one call of Answer, so that groups take turns.
	answerRows = 50_000
	answerTime = 5 * time.Second
	// previousMargin is the margin for the clocks of Redis and Postgres in requests of the
	// previous release.
	previousMargin = 10 * time.Second
)

// own makes this instance the one that answers a request. It fails to if the group had
// another number of answers when it based its request, if another instance answers, or
// if the last answer was to the same request and not long ago. The pause doubles with
// each such answer, from 5 seconds to an hour. A time in the future was written before a
// clock went back: it counts as over.
const own = `
	UPDATE outbox_answers
	SET owner = @owner, owned_until = now() + interval '30 seconds'
	WHERE topic = @topic AND consumer = @consumer AND (answers = @answers OR @previous)
		AND (owner IN ('', @owner) OR owned_until NOT BETWEEN now() AND now() + interval '30 seconds')
		AND (reached > 0 OR digest <> @digest OR answered_at > now()
			OR answered_at < now() - least(interval '1 hour', interval '5 seconds' * (1::bigint << least(attempts - 1, 20))))
	RETURNING reached`

const (
	progressMade = `
		UPDATE outbox_answers SET reached = $4, owned_until = now() + interval '30 seconds'
		WHERE topic = $1 AND consumer = $2 AND owner = $3`
	answered = `
		UPDATE outbox_answers
		SET answers = answers + 1, reached = 0, owner = '', attempts = CASE WHEN digest = @digest THEN attempts + 1 ELSE 1 END,
			digest = @digest, partly = @partly, answered_at = now()
		WHERE topic = @topic AND consumer = @consumer AND owner = @owner`
)

// errNotOwner says that another instance has taken over the answer.
var errNotOwner = errors.New("another instance answers the request")

// Answer implements reconcile.Outbox. It reads the requested rows and publishes them
// with their numbers; the rows do not change. Its progress survives a restart.
func (p *Published) Answer(ctx context.Context, topic event.Topic, request reconcile.RepublishRequest) (reconcile.Answer, error) {
	a := answer{Published: p, topic: string(topic), request: request}
	ok, err := a.begin(ctx)
	if err != nil || !ok {
		return reconcile.Answer{}, err
	}
	for start := time.Now(); a.sent < answerRows && time.Since(start) < answerTime; {
		rows, err := a.next(ctx)
		if err != nil {
			return reconcile.Answer{Sent: a.sent}, err
		}
		if len(rows) == 0 {
			return reconcile.Answer{Sent: a.sent, Done: true}, a.end(ctx, whole)
		}
		if err := a.send(ctx, rows); err != nil {
			return reconcile.Answer{Sent: a.sent}, err
		}
	}
	if a.isChunk() {
		// The group asks for the rest with the ids that it has by then.
		return reconcile.Answer{Sent: a.sent, Done: true}, a.end(ctx, partly)
	}
	return reconcile.Answer{Sent: a.sent, More: true}, nil
}

// answer is a part of the work on one request.
type answer struct {
	*Published
	topic     string
	request   reconcile.RepublishRequest
	epochs    []epoch
	ranges    []reconcile.SeqRange // requested and not sent yet, in order
	reached   int64
	reachedID string // in a chunk of an hour
	sent      int64
}

// extent says how much of a request was answered.
type extent int

const (
	whole extent = iota
	partly
)

// isChunk reports whether a chunk of an hour is requested.
func (a *answer) isChunk() bool { return a.request.Chunk != nil && len(a.request.Ranges) == 0 }

func (a *answer) begin(ctx context.Context) (ok bool, err error) {
	const add = `INSERT INTO outbox_answers (topic, consumer) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	batch := &pgx.Batch{}
	batch.Queue(add, a.topic, a.request.Group)
	batch.Queue(own, pgx.StrictNamedArgs{
		"topic": a.topic, "consumer": a.request.Group, "owner": a.instance, "answers": a.request.Answers,
		"previous": !a.request.CaughtUp.IsZero(), "digest": a.request.Digest(),
	}).QueryRow(func(row pgx.Row) error {
		err := row.Scan(&a.reached)
		ok = err == nil
		if errors.Is(err, pgx.ErrNoRows) {
			return nil
		}
		return err
	})
	batch.Queue(readEpochs, a.topic).Query(func(rows pgx.Rows) (err error) {
		a.epochs, err = pgx.CollectRows(rows, scanEpoch)
		return err
	})
	if err := a.db.SendBatch(ctx, batch).Close(); err != nil {
		return false, fmt.Errorf("begin to answer %s: %w", a.request.Group, err)
	}
	for _, r := range a.request.Ranges {
		bounds, ok := a.epoch(r.Epoch)
		if ok && r.First <= bounds.last && r.Last >= bounds.first {
			a.ranges = append(a.ranges, reconcile.SeqRange{First: max(r.First, bounds.first), Last: min(r.Last, bounds.last)})
		}
	}
	slices.SortFunc(a.ranges, func(x, y reconcile.SeqRange) int { return cmp.Compare(x.First, y.First) })
	return ok, nil
}

// epoch returns the epoch with a name. The previous release names none and may mean any.
func (a *answer) epoch(name string) (epoch, bool) {
	if !a.request.CaughtUp.IsZero() {
		return epoch{first: 1, last: maxSeq}, true
	}
	for _, e := range a.epochs {
		if e.name == name {
			return e, true
		}
	}
	return epoch{}, false
}

// next returns the next rows to publish; none if there are no more.
func (a *answer) next(ctx context.Context) ([]row, error) {
	if a.isChunk() {
		return a.nextInHour(ctx, *a.request.Chunk)
	}
	const query = `
		SELECT o.id, o.event_id::text, o.name, o.seq, o.payload
		FROM unnest($2::bigint[], $3::bigint[]) AS r (low, high)
			CROSS JOIN LATERAL (
				SELECT id, event_id, name, seq, payload FROM outbox
				WHERE topic = $1 AND seq BETWEEN greatest(r.low, $4::bigint + 1) AND r.high
					AND published_at IS NOT NULL AND ($5::timestamptz IS NULL OR published_at < $5)
				ORDER BY topic, seq
				LIMIT $6) AS o
		ORDER BY o.seq
		LIMIT $6`
	for {
		low, high := a.nextRanges()
		if len(low) == 0 {
			return nil, nil
		}
		rows, err := a.read(ctx, query, a.topic, low, high, a.reached, a.publishedBefore(), batchSize)
		if err != nil || len(rows) > 0 {
			return rows, err
		}
		a.reached = high[len(high)-1] // The outbox does not have these numbers.
	}
}

// nextRanges returns the ranges to look at next: as many as a batch can have rows of.
func (a *answer) nextRanges() (low, high []int64) {
	for len(a.ranges) > 0 && a.ranges[0].Last <= a.reached {
		a.ranges = a.ranges[1:]
	}
	numbers := int64(0)
	for _, r := range a.ranges {
		if numbers >= batchSize {
			break
		}
		low, high = append(low, r.First), append(high, r.Last)
		numbers += r.Last - max(r.First, a.reached+1) + 1
	}
	return low, high
}

// nextInHour returns rows of an hour that the group does not have.
func (a *answer) nextInHour(ctx context.Context, chunk reconcile.HourChunk) ([]row, error) {
	const query = `
		SELECT id, event_id::text, name, seq, payload FROM outbox
		WHERE topic = $1 AND event_id >= $2 AND event_id < $3 AND event_id > $4 AND seq BETWEEN $5 AND $6
			AND published_at IS NOT NULL AND event_id <> ALL($7::uuid[])
		ORDER BY event_id
		LIMIT $8`
	bounds, ok := a.epoch(chunk.Epoch)
	if !ok {
		return nil, nil
	}
	return a.read(ctx, query, a.topic, chunk.From, chunk.Until, cmp.Or(a.reachedID, noID), bounds.first, bounds.last, chunk.IDs, batchSize)
}

func (a *answer) read(ctx context.Context, query string, args ...any) ([]row, error) {
	found, err := a.db.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read lost events of %s: %w", a.topic, err)
	}
	rows, err := pgx.CollectRows(found, func(r pgx.CollectableRow) (b row, err error) {
		err = r.Scan(&b.id, &b.eventID, &b.name, &b.seq, &b.payload)
		return b, err
	})
	if err != nil {
		return nil, fmt.Errorf("read lost events of %s: %w", a.topic, err)
	}
	return within(rows, batchBytes), nil
}

const noID = "00000000-0000-0000-0000-000000000000"

func (a *answer) publishedBefore() *time.Time {
	if a.request.CaughtUp.IsZero() {
		return nil
	}
	before := a.request.CaughtUp.Add(-previousMargin)
	return &before
}

// within returns the first rows whose payloads have at most limit bytes, at least one.
func within(rows []row, limit int) []row {
	bytes := 0
	for i, b := range rows {
		if bytes += len(b.payload); bytes > limit && i > 0 {
			return rows[:i]
		}
	}
	return rows
}

// send publishes rows and stores how far it has come.
func (a *answer) send(ctx context.Context, rows []row) error {
	if err := publish(ctx, a.publisher, batch{topic: a.topic, producer: a.producer, epochs: a.epochs, rows: rows}); err != nil {
		return err
	}
	a.sent += int64(len(rows))
	last := rows[len(rows)-1]
	reached := int64(0) // A chunk has no position: it is answered in one call.
	if !a.isChunk() {
		a.reached, reached = last.seq, last.seq
	}
	a.reachedID = last.eventID
	tag, err := a.db.Exec(ctx, progressMade, a.topic, a.request.Group, a.instance, reached)
	if err == nil && tag.RowsAffected() == 0 {
		err = errNotOwner
	}
	if err != nil {
		return fmt.Errorf("store the progress of the answer to %s: %w", a.request.Group, err)
	}
	return nil
}

// end stores that the request was answered. What the group requests from now on has to
// be based on a later watermark.
func (a *answer) end(ctx context.Context, e extent) error {
	args := pgx.StrictNamedArgs{
		"topic": a.topic, "consumer": a.request.Group, "owner": a.instance, "digest": a.request.Digest(), "partly": e == partly,
	}
	if _, err := a.db.Exec(ctx, answered, args); err != nil {
		return fmt.Errorf("end the answer to %s: %w", a.request.Group, err)
	}
	return nil
}
