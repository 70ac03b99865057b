package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"time"

	"github.com/headgate/headgate/pkg/bus"
)

// A restored database is recognised unless its copy is younger than two of these.
// Postgres writes an asynchronous commit to disk within three wal_writer_delays of
// 200 ms.
const postInterval = time.Second

// checkedDatabase is a database that is no older copy, or whose restore was handled.
type checkedDatabase struct {
	database   string // in terms of databaseSQL
	generation string
	late       bool // some producers were not compared when the last round read them
}

// poster posts the consumed watermark, so that producers keep what the group needs, and
// an older copy of the database is recognised as one. It waits for no round.
type poster struct {
	cfg      ConsumerConfig
	checked  atomic.Pointer[checkedDatabase]   // nil until the database is checked
	posted   atomic.Pointer[ConsumedWatermark] // the last one of this process
	replaced chan struct{}                     // tells the consumer that the database was replaced
}

func newPoster(cfg ConsumerConfig) *poster {
	return &poster{cfg: cfg, replaced: make(chan struct{}, 1)}
}

// unposted is a consumed watermark that was read not long ago.
type unposted struct {
	checkedDatabase
	watermark ConsumedWatermark
}

// run posts until ctx is done. What it posts was read at least one postInterval ago: by
// then Postgres has written it to disk, and no crash can lose it.
func (p *poster) run(ctx context.Context) {
	next := time.NewTimer(postInterval)
	defer next.Stop()
	var before *unposted
	for {
		select {
		case <-ctx.Done():
			return
		case <-next.C:
		}
		read, err := p.post(ctx, before)
		if err == nil {
			before = read
		} else if ctx.Err() == nil {
			// A failure shows in the next round, too.
			p.cfg.Log.DebugContext(ctx, "consumed watermark could not be posted; retrying", "error", err.Error())
		}
		if errors.Is(err, errReplaced) {
			select {
			case p.replaced <- struct{}{}:
			default:
			}
		}
		next.Reset(postInterval)
	}
}

// post posts what was read before and returns what it reads now.
func (p *poster) post(ctx context.Context, before *unposted) (*unposted, error) {
	checked := p.checked.Load()
	if checked == nil {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, consumerRoundTimeout)
	defer cancel()
	position, err := bus.GroupPosition(ctx, p.cfg.Redis, string(p.cfg.Topic), p.cfg.Group)
	if err != nil {
		return nil, err
	}
	producers, err := consumedIn(ctx, p.cfg.Database, p.cfg.Topic)
	if err != nil {
		return nil, err
	}
	if err := sameDatabase(ctx, p.cfg.Database, checked.database); err != nil {
		return nil, err
	}
	var uncompared map[string]beforeCheck
	if checked.late {
		if uncompared, err = uncomparedProducers(ctx, p.cfg.Database, p.cfg.Topic); err != nil {
			return nil, err
		}
	}
	now := &unposted{*checked, ConsumedWatermark{
		Generation: checked.generation, HandledUntil: position.HandledUntil, Producers: producers,
		Check: checked.database, Uncompared: slices.Sorted(maps.Keys(uncompared)),
	}}
	if before == nil || before.checkedDatabase != *checked {
		return now, nil
	}
	data, err := json.Marshal(before.watermark)
	if err != nil {
		return nil, fmt.Errorf("encode consumed watermark: %w", err)
	}
	if err := p.cfg.Redis.HSet(ctx, consumedKey(p.cfg.Topic), p.cfg.Group, data).Err(); err != nil {
		return nil, fmt.Errorf("post consumed watermark of %s: %w", p.cfg.Topic, err)
	}
	p.posted.Store(&before.watermark)
	return now, nil
}
