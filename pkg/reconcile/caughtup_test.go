package reconcile_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/reconcile"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestCaughtUp: the time follows what the group has acknowledged.
func TestCaughtUp(t *testing.T) {
	t.Parallel()
	client, topic := testkit.Redis(t), string(event.Audit)
	caughtUp := func() time.Time {
		at, err := reconcile.CaughtUp(t.Context(), client, event.Audit, "test")
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	if at := caughtUp(); !at.IsZero() {
		t.Errorf("without a stream = %s", at)
	}
	before := time.Now().Add(-time.Second)
	for range 2 {
		if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: topic, Values: []string{"field", "value"}}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	added := time.Now()
	if err := client.XGroupCreate(t.Context(), topic, "test", "0").Err(); err != nil {
		t.Fatal(err)
	}
	if at := caughtUp(); at.After(before) {
		t.Errorf("before anything was read = %s", at)
	}
	read := &redis.XReadGroupArgs{Group: "test", Consumer: "c", Streams: []string{topic, ">"}, Block: -1}
	if err := client.XReadGroup(t.Context(), read).Err(); err != nil {
		t.Fatal(err)
	}
	if at := caughtUp(); at.Before(before) || at.After(added) {
		t.Errorf("with two pending = %s, want the time of the first", at)
	}
	entries, err := client.XRange(t.Context(), topic, "-", "+").Result()
	if err != nil {
		t.Fatal(err)
	}
	if err := client.XAck(t.Context(), topic, "test", entries[0].ID, entries[1].ID).Err(); err != nil {
		t.Fatal(err)
	}
	if at := caughtUp(); at.Before(added.Add(-time.Second)) {
		t.Errorf("with all acknowledged = %s, want now", at)
	}
}
