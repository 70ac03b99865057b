package outbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/postgres"
)

// numbering is the key of the advisory lock that one relay at a time numbers
// under, so that numbers are dense. It is held for one round trip.
const numbering = 0x6f7574626f78 // "outbox"

// number gives the rows at the head of the queue their numbers, in a transaction
// of its own: once a number may be on the stream, no rollback can take it back.
// The business's transactions cannot number, for they would wait for each other
// or leave gaps when they are rolled back.
//
// The tallies grow with the numbers, so they count exactly the numbered events.
var number = `
	WITH head AS (
		SELECT id, topic, event_id, seq FROM outbox
		WHERE published_at IS NULL
		ORDER BY id
		LIMIT $1
	), fresh AS (
		SELECT id, topic, event_id, row_number() OVER (PARTITION BY topic ORDER BY id) AS n
		FROM head
		WHERE seq IS NULL
	), heads AS (
		INSERT INTO outbox_heads AS h (topic, seq)
		SELECT topic, count(*) FROM fresh GROUP BY topic ORDER BY topic
		ON CONFLICT (topic) DO UPDATE SET seq = h.seq + excluded.seq
		RETURNING topic, seq
	), given AS (
		SELECT fresh.id, fresh.topic, fresh.event_id,
			heads.seq - (SELECT count(*) FROM fresh f WHERE f.topic = fresh.topic) + fresh.n AS seq
		FROM fresh JOIN heads USING (topic)
	), tallies AS (
		INSERT INTO outbox_tallies AS t (topic, hour, count, sum, last_seq)
		SELECT topic, ` + postgres.HourOfUUID("event_id") + `, count(*), sum(` + postgres.HashOfUUID("event_id") + `), max(seq)
		FROM given
		GROUP BY 1, 2
		ON CONFLICT (topic, hour) DO UPDATE
		SET count = t.count + excluded.count, sum = t.sum + excluded.sum, last_seq = greatest(t.last_seq, excluded.last_seq)
	)
	UPDATE outbox SET seq = given.seq
	FROM given
	WHERE outbox.id = given.id`

func (r *Relay) numberRows(ctx context.Context) error {
	batch := &pgx.Batch{} // one implicit transaction
	batch.Queue(`SELECT pg_advisory_xact_lock($1)`, int64(numbering))
	batch.Queue(number, batchSize)
	if err := r.db.SendBatch(ctx, batch).Close(); err != nil {
		return fmt.Errorf("number outbox rows: %w", err)
	}
	return nil
}
