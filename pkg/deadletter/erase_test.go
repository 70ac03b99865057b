package deadletter_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// SEC-108: when a subject is erased, its dead letters lose their content at once and cannot
// be replayed: also those that are stored later, and those whose payload was cut. Those of
// others stay.
func TestSEC108ErasedSubjectsLeaveTheDeadLetters(t *testing.T) {
	t.Parallel()
	db := testkit.Database(t, outbox.Schema(), deadletter.Schema())
	store := deadletter.New(db, outbox.New("test"), time.Now)
	fail := func(subject, email string) {
		t.Helper()
		e := event.New(t.Context(), time.Now(), subject, event.UserSignedUp{Email: email, Name: strings.Repeat("Ann ", 10)})
		e.ID, e.Producer, e.ProducerSeq = uuid.NewString(), "test", 7
		payload, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(payload), string(payload[:len(payload)-3])} {
			if err := store.Publish("ignored", poisoned(t, text, "smtp: 550 <"+email+"> unknown")); err != nil {
				t.Fatal(err)
			}
		}
	}
	fail("ann", "ann@example.com")
	fail("bob", "bob@example.com")
	if err := store.Erase(t.Context(), "ann"); err != nil {
		t.Fatal(err)
	}
	fail("ann", "ann@later.example.com")
	if err := store.Erase(t.Context(), "ann"); err != nil {
		t.Fatalf("Erase again = %v", err)
	}
	var kept int
	const dump = `SELECT count(*) FROM dead_letters d WHERE strpos(d::text || convert_from(payload, 'UTF8'), $1) > 0`
	for text, want := range map[string]int{"ann@": 0, "bob@example.com": 2} {
		if err := db.QueryRow(t.Context(), dump, text).Scan(&kept); err != nil || kept != want {
			t.Errorf("%d dead letters have %q, want %d, %v", kept, text, want, err)
		}
	}
	list, err := store.List(t.Context(), deadletter.Filter{Status: "discarded"}, "", 10)
	if err != nil || len(list) != 4 {
		t.Fatalf("discarded = %+v, %v, want 4", list, err)
	}
	for _, l := range list {
		if err := store.Replay(t.Context(), l.ID); !errors.Is(err, deadletter.ErrClosed) {
			t.Errorf("Replay of an erased dead letter = %v, want %v", err, deadletter.ErrClosed)
		}
	}
	if _, err := store.Get(t.Context(), list[0].ID); err != nil {
		t.Error(fmt.Errorf("Get: %w", err))
	}
}
