package bus_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestFollower: every follower sees recent and new events, skips malformed entries,
// and continues after Redis lost its data.
func TestFollower(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	publisher := bus.NewPublisher(client)
	publish := func(session string) {
		t.Helper()
		m := newMessage(t, event.SessionRevoked{SessionID: session})
		if err := publisher.Publish(string(event.User), m); err != nil {
			t.Fatal(err)
		}
	}
	publish("before")
	var mu sync.Mutex
	seen := map[int][]string{}
	for i := range 2 {
		testkit.Run(t, bus.NewFollower(client, event.User, func(e event.Event) {
			revoked, err := event.Decode[event.SessionRevoked](e)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			seen[i] = append(seen[i], revoked.SessionID)
		}, nil, testkit.Log(t)))
	}
	want := func(sessions ...string) {
		t.Helper()
		testkit.Eventually(t, func() error {
			mu.Lock()
			defer mu.Unlock()
			for i := range 2 {
				if !slices.Equal(seen[i], sessions) {
					return fmt.Errorf("follower %d saw %v, want %v", i, seen[i], sessions)
				}
			}
			return nil
		})
	}
	want("before")
	if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.User), Values: []string{"junk", "\xff"}}).Err(); err != nil {
		t.Fatal(err)
	}
	publish("after")
	want("before", "after")
	flush(t, client)
	publish("after all was lost")
	want("before", "after", "after all was lost")
}
