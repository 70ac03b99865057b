package outbox_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestTooLarge is REL-47: an event that could block its stream is refused in the
// transaction of the change.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	db, box := testkit.Database(t, outbox.Schema()), outbox.New("test")
	for _, tc := range []struct {
		bytes int
		want  error
	}{
		{outbox.MaxEventBytes / 2, nil},
		{outbox.MaxEventBytes, outbox.ErrTooLarge}, // the envelope comes on top
	} {
		e := event.New(t.Context(), time.Now(), "subject", event.SessionRefreshed{SessionID: strings.Repeat("x", tc.bytes)})
		err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return box.Add(t.Context(), tx, e) })
		if !errors.Is(err, tc.want) {
			t.Errorf("Add(%d bytes) = %v, want %v", tc.bytes, err, tc.want)
		}
		if err != nil && (!strings.Contains(err.Error(), e.Name) || !strings.Contains(err.Error(), strconv.Itoa(outbox.MaxEventBytes))) {
			t.Errorf("Add(%d bytes) = %v, want the event's name and the limit", tc.bytes, err)
		}
	}
	var rows int
	if err := db.QueryRow(t.Context(), `SELECT count(*) FROM outbox`).Scan(&rows); err != nil || rows != 1 {
		t.Errorf("%d rows (%v), want 1", rows, err)
	}
}

// measuring is a broker that remembers the size of each batch.
type measuring struct {
	mu      sync.Mutex
	batches []int // bytes
	largest int   // message
	events  int
}

func (m *measuring) PublishNumbered(_ string, _ []bus.HighestNumber, messages ...*message.Message) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	sum := 0
	for _, one := range messages {
		sum += len(one.Payload)
		m.largest = max(m.largest, len(one.Payload))
	}
	m.batches = append(m.batches, sum)
	m.events += len(messages)
	return nil
}

// TestBatchBytes: a batch is limited in bytes, and a row that is larger than that, as an
// earlier release may have left it, goes alone.
func TestBatchBytes(t *testing.T) {
	t.Parallel()
	db, box, broker := testkit.Database(t, outbox.Schema()), outbox.New("test"), &measuring{}
	const small, mebibyte = 40, 1 << 20
	insert := func(bytes int) {
		t.Helper()
		e := event.New(t.Context(), time.Now(), "subject", event.SessionRefreshed{SessionID: strings.Repeat("x", bytes)})
		if err := pgx.BeginFunc(t.Context(), db, func(tx pgx.Tx) error { return box.Add(t.Context(), tx, e) }); err != nil {
			t.Fatal(err)
		}
	}
	insert(10)
	const enlarge = `UPDATE outbox SET payload = ('{"a":"' || repeat('x', $1) || '",' || substr(payload::text, 2))::json`
	if _, err := db.Exec(t.Context(), enlarge, 3*mebibyte); err != nil {
		t.Fatal(err)
	}
	for range small {
		insert(200 << 10)
	}
	relay(t, db, testkit.Redis(t), broker)
	testkit.Eventually(t, func() error {
		broker.mu.Lock()
		defer broker.mu.Unlock()
		if broker.events != small+1 {
			return fmt.Errorf("%d events published, want %d", broker.events, small+1)
		}
		return nil
	})
	broker.mu.Lock()
	defer broker.mu.Unlock()
	if broker.batches[0] != broker.largest {
		t.Errorf("the first batch has %d bytes, want only the large event of %d", broker.batches[0], broker.largest)
	}
	for _, bytes := range broker.batches[1:] {
		if bytes > mebibyte+outbox.MaxEventBytes {
			t.Errorf("a batch has %d bytes", bytes)
		}
	}
}
