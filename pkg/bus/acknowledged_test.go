package bus_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestAcknowledged is REL-51: acknowledged events are found over several pages. Pending and
// unread events are not found, and malformed entries are ignored.
func TestAcknowledged(t *testing.T) {
	t.Parallel()
	client, topic := testkit.Redis(t), string(event.Audit)
	acknowledged := func() (subjects []string) {
		t.Helper()
		err := (*bus.Authenticity)(nil).Acknowledged(t.Context(), client, topic, "group", func(e event.Event) { subjects = append(subjects, e.Subject) })
		if err != nil {
			t.Fatal(err)
		}
		return subjects
	}
	if subjects := acknowledged(); subjects != nil {
		t.Errorf("without a stream: %q", subjects)
	}
	if err := client.XGroupCreateMkStream(t.Context(), topic, "group", "0").Err(); err != nil {
		t.Fatal(err)
	}
	const handled, pending, unread = 2500, 10, 5
	var events []event.Event
	var want []string
	for i := range handled + pending + unread {
		subject := strconv.Itoa(i)
		events = append(events, testkit.NewEvent(t.Context(), subject, event.UserLoggedIn{}))
		if i < handled {
			want = append(want, subject)
		}
	}
	slices.Reverse(want)
	testkit.Publish(t, client, event.Audit, events[:1]...)
	if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: topic, Values: []string{"not", "an event"}}).Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Publish(t, client, event.Audit, events[1:]...)
	read, err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{
		Group: "group", Consumer: "c", Streams: []string{topic, ">"}, Count: 1 + handled + pending,
	}).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range read[0].Messages[:1+handled] {
		if err := client.XAck(t.Context(), topic, "group", entry.ID).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if subjects := acknowledged(); !slices.Equal(subjects, want) {
		t.Errorf("%d acknowledged events, want %d, the latest first", len(subjects), len(want))
	}
}
