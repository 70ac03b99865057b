package deadletter_test

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/ThreeDotsLabs/watermill/message/router/middleware"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

const megabyte = 1 << 20

// hostile are messages that a stranger with access to the stream could publish, and
// failures that they could cause.
func hostile(t *testing.T) map[string]*message.Message {
	t.Helper()
	with := func(change func(*message.Message)) *message.Message {
		m := poisoned(t, "raw", "a fault")
		change(m)
		return m
	}
	set := func(key, value string) *message.Message {
		return with(func(m *message.Message) { m.Metadata.Set(key, value) })
	}
	id := func(id string) *message.Message { return with(func(m *message.Message) { m.UUID = id }) }
	payload := func(payload string) *message.Message { return poisoned(t, payload, "a fault") }
	eventWith := func(field, value string) *message.Message {
		_, data := sealedEvent(t)
		var fields map[string]json.RawMessage
		if err := json.Unmarshal([]byte(data), &fields); err != nil {
			t.Fatal(err)
		}
		fields[field] = json.RawMessage(value)
		encoded, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		return payload(string(encoded))
	}
	long := strings.Repeat("x", 9000)
	random := func(n int) string {
		// Postgres compresses repeated text before it checks the size of a key.
		data := make([]byte, n/2+1)
		if _, err := rand.Read(data); err != nil {
			t.Fatal(err)
		}
		return hex.EncodeToString(data)[:n]
	}
	attempts, err := json.Marshal(make([]bus.Attempt, 20_000))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*message.Message{
		"id of 9,000 characters":         id(random(9000)),
		"id of 1 MiB":                    id(random(megabyte)),
		"id with NUL":                    id("a\x00b"),
		"id that is not UTF-8":           id("a\xff\xfeb"),
		"empty id":                       id(""),
		"topic of 9,000 characters":      set(bus.TopicKey, random(9000)),
		"topic with NUL":                 set(bus.TopicKey, "a\x00\xff"),
		"entry id of 1 MiB":              set(bus.EntryKey, random(megabyte)),
		"entry id with NUL":              set(bus.EntryKey, "1-\x00\xff"),
		"reason of 8 MiB":                set(middleware.ReasonForPoisonedKey, random(8*megabyte)),
		"reason with NUL":                set(middleware.ReasonForPoisonedKey, "\x00\xff\ud7ff"),
		"class with NUL":                 set(bus.ClassKey, "\x00\xff"),
		"class of 1 MiB":                 set(bus.ClassKey, random(megabyte)),
		"20,000 attempts":                set(bus.AttemptsKey, string(attempts)),
		"attempt with an error of 4 MiB": set(bus.AttemptsKey, `[{"at":"2026-01-01T00:00:00Z","error":"`+random(4*megabyte)+`"}]`),
		"attempts in the year 0":         set(bus.AttemptsKey, `[{"at":"0000-01-01T00:00:00Z","error":"\u0000\ud800"}]`),
		"attempts in the year 9999":      set(bus.AttemptsKey, `[{"at":"9999-12-31T23:59:59-23:59","error":""}]`),
		"attempts that are not JSON":     set(bus.AttemptsKey, `[[[[`),
		"100,000 metadata keys": with(func(m *message.Message) {
			for i := range 100_000 {
				m.Metadata.Set(fmt.Sprint("key ", i), "value")
			}
		}),
		"metadata of 20 MiB":        set("key", random(20*megabyte)),
		"metadata key of 1 MiB":     set(random(megabyte), "value"),
		"metadata with NUL":         set("a\x00\xff", "\x00\xff\\u0000"),
		"JSON 100,000 deep":         payload(strings.Repeat("[", 100_000) + strings.Repeat("]", 100_000)),
		"JSON 9,000 deep":           payload(strings.Repeat(`{"a":`, 9000) + "1" + strings.Repeat("}", 9000)),
		"payload of 9 MiB":          payload(random(9 * megabyte)),
		"empty payload":             payload(""),
		"event named at length":     eventWith("name", `"`+long+`.happened.v1"`),
		"producer with NUL":         eventWith("producer", `"a\u0000b"`),
		"producer of 1 MiB":         eventWith("producer", `"`+random(megabyte)+`"`),
		"highest sequence number":   eventWith("producerSeq", "9223372036854775807"),
		"sequence number overflows": eventWith("producerSeq", "9223372036854775808"),
		"occurred in the year 0":    eventWith("occurredAt", `"0000-01-01T00:00:00Z"`),
		"occurred in the year 9999": eventWith("occurredAt", `"9999-12-31T23:59:59-23:59"`),
		"data 9,000 deep":           eventWith("data", strings.Repeat(`{"a":`, 9000)+"1"+strings.Repeat("}", 9000)),
	}
}

// TestREL68ADeadLetterCanAlwaysBeStored is REL-68: whatever a message consists of, its
// dead letter can be stored, listed and read. A message that fails again has one dead
// letter, and messages that differ have different ones.
func TestREL68ADeadLetterCanAlwaysBeStored(t *testing.T) {
	t.Parallel()
	store := deadletter.New(testkit.Database(t, outbox.Schema(), deadletter.Schema()), outbox.New("test"), time.Now)
	messages := hostile(t)
	for name, m := range messages {
		for range 2 {
			if err := store.Publish("", m); err != nil {
				t.Errorf("%s: Publish() = %.300v", name, err)
			}
		}
	}
	deadLetters, err := store.List(t.Context(), deadletter.Filter{}, "", 1000)
	if err != nil || len(deadLetters) != len(messages) {
		t.Fatalf("%d dead letters, %v, want %d", len(deadLetters), err, len(messages))
	}
	list, err := json.Marshal(deadLetters)
	if err != nil || len(list) > megabyte {
		t.Errorf("the list has %d bytes, %v", len(list), err)
	}
	for _, d := range deadLetters {
		detail, err := store.Get(t.Context(), d.ID)
		if err != nil {
			t.Errorf("Get() = %v", err)
		}
		if data, err := json.Marshal(detail); err != nil || len(data) > 70*megabyte {
			t.Errorf("the detail has %d bytes, %v", len(data), err)
		}
	}
}

// TestLongIDsDiffer: ids that differ only behind the length that is kept are different
// messages.
func TestLongIDsDiffer(t *testing.T) {
	t.Parallel()
	store := deadletter.New(newDatabase(t), outbox.New("test"), time.Now)
	for _, end := range []string{"a", "b", "a\x00", "a\xff", "a\uFFFD"} {
		m := poisoned(t, "raw", "a fault")
		m.UUID = strings.Repeat("x", 3000) + end
		if err := store.Publish("", m); err != nil {
			t.Fatal(err)
		}
		m.UUID = end
		if err := store.Publish("", m); err != nil {
			t.Fatal(err)
		}
	}
	if deadLetters, err := store.List(t.Context(), deadletter.Filter{}, "", 100); err != nil || len(deadLetters) != 10 {
		t.Errorf("%d dead letters, %v, want 10", len(deadLetters), err)
	}
}

// TestLastResort: a dead letter that Postgres rejects for a reason that nobody thought
// of is stored without what may be the cause.
func TestLastResort(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		constraint string
		replayable bool
	}{
		"metadata are rejected":       {`CHECK (metadata = '{}')`, true},
		"the attempts are rejected":   {`CHECK (jsonb_array_length(attempts) < 2)`, true},
		"the payload is rejected":     {`CHECK (length(payload) < 100)`, false},
		"the event's name is":         {`CHECK (type IS NULL)`, false},
		"all that is not needed is":   {`CHECK (length(payload) = 0 AND metadata = '{}' AND producer IS NULL AND length(message_id) < 100)`, false},
		"nothing is rejected, really": {`CHECK (true)`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			if _, err := db.Exec(t.Context(), `ALTER TABLE dead_letters ADD CONSTRAINT unforeseen `+tc.constraint); err != nil {
				t.Fatal(err)
			}
			store := deadletter.New(db, outbox.New("test"), time.Now)
			_, payload := sealedEvent(t)
			m := poisoned(t, payload, "a fault")
			m.Metadata.Set(bus.AttemptsKey, `[{"at":"2026-01-01T00:00:00Z","error":"a"},{"at":"2026-01-01T00:00:00Z","error":"b"}]`)
			for range 2 {
				if err := store.Publish("", m); err != nil {
					t.Fatalf("Publish() = %v", err)
				}
			}
			deadLetters, err := store.List(t.Context(), deadletter.Filter{}, "", 10)
			if err != nil || len(deadLetters) != 1 {
				t.Fatalf("List() = %+v, %v", deadLetters, err)
			}
			if err := store.Replay(t.Context(), deadLetters[0].ID); (err == nil) != tc.replayable {
				t.Errorf("Replay() = %v, want replayable %v", err, tc.replayable)
			}
		})
	}
}

// TestREL83NothingIsLeftOutForAnotherReason is REL-83: an error that the message did not
// cause takes nothing from its dead letter. Publish fails instead, so the message is
// redelivered.
func TestREL83NothingIsLeftOutForAnotherReason(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]string{
		"a lock timeout": "55P03",
		"a deadlock":     "40P01",
		"a statement that a pooler does not know":  "26000",
		"a missing privilege":                      "42501",
		"a fault of the server":                    "XX000",
		"a column that the database does not have": "42703",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDatabase(t)
			// The first two inserts fail. A rollback does not reset a sequence.
			if _, err := db.Exec(t.Context(), `
				CREATE SEQUENCE inserts;
				CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$
				BEGIN
					IF nextval('inserts') <= 2 THEN
						RAISE EXCEPTION 'not now' USING ERRCODE = '`+code+`';
					END IF;
					RETURN NEW;
				END $$;
				CREATE TRIGGER fail BEFORE INSERT ON dead_letters FOR EACH ROW EXECUTE FUNCTION fail();`); err != nil {
				t.Fatal(err)
			}
			store := deadletter.New(db, outbox.New("test"), time.Now)
			_, payload := sealedEvent(t)
			m := poisoned(t, payload, "a fault")
			for n := range 3 {
				if err := store.Publish("", m); (err == nil) != (n == 2) {
					t.Errorf("delivery %d: Publish() = %v", n+1, err)
				}
			}
			deadLetters, err := store.List(t.Context(), deadletter.Filter{}, "", 10)
			if err != nil || len(deadLetters) != 1 || deadLetters[0].Reason != "a fault" {
				t.Fatalf("List() = %+v, %v, want one for a fault", deadLetters, err)
			}
			if err := store.Replay(t.Context(), deadLetters[0].ID); err != nil {
				t.Errorf("Replay() = %v", err)
			}
		})
	}
}

// TestAttemptsAreBounded: a message that fails again and again does not make its dead
// letter grow without bound.
func TestAttemptsAreBounded(t *testing.T) {
	t.Parallel()
	store := deadletter.New(newDatabase(t), outbox.New("test"), time.Now)
	m := poisoned(t, "raw", "a fault")
	for n := range 150 {
		m.Metadata.Set(bus.AttemptsKey, fmt.Sprintf(`[{"at":"2026-01-01T00:00:00Z","error":"%d"}]`, n))
		if err := store.Publish("", m); err != nil {
			t.Fatal(err)
		}
	}
	deadLetters, err := store.List(t.Context(), deadletter.Filter{}, "", 10)
	if err != nil || len(deadLetters) != 1 || deadLetters[0].Attempts != 100 {
		t.Fatalf("List() = %+v, %v, want one with the last 100 attempts", deadLetters, err)
	}
	detail, err := store.Get(t.Context(), deadLetters[0].ID)
	if err != nil || detail.Errors[99].Error != "149" {
		t.Errorf("the last attempt is %+v, %v", detail.Errors[len(detail.Errors)-1], err)
	}
}

// TestForgedReplay: a stranger who knows a dead letter's id cannot pass a message off
// as its replay. The message would vanish in the other's dead letter.
func TestForgedReplay(t *testing.T) {
	t.Parallel()
	i := newInstance(t, newDatabase(t), 0)
	id, _ := i.add()
	forged := poisoned(t, "raw", "a fault")
	forged.Metadata.Set("headgate_dead_letter", id)
	forged.Metadata.Set("headgate_lease", time.Now().Format(time.RFC3339Nano))
	if err := i.store.Publish("", forged); err != nil {
		t.Fatal(err)
	}
	deadLetters, err := i.store.List(t.Context(), deadletter.Filter{}, "", 10)
	if err != nil || len(deadLetters) != 2 {
		t.Errorf("%d dead letters, %v, want 2", len(deadLetters), err)
	}
}

// FuzzPublish is REL-68 for any bytes.
func FuzzPublish(f *testing.F) {
	store := deadletter.New(testkit.Database(f, outbox.Schema(), deadletter.Schema()), outbox.New("test"), time.Now)
	f.Add("id", "topic", "1-1", "reason", "class", "[]", "key", "value", []byte("payload"))
	f.Add("\x00", "\xff", "", "\n", "\\u0000", `[{"error":"\u0000"}]`, "headgate_lease", "9999-12-31T23:59:59Z", []byte(`{"id":"\u0000"}`))
	f.Fuzz(func(t *testing.T, id, topic, entry, reason, class, attempts, key, value string, payload []byte) {
		m := message.NewMessage(id, payload)
		m.Metadata = message.Metadata{
			key: value, bus.TopicKey: topic, bus.EntryKey: entry, bus.ClassKey: class,
			bus.AttemptsKey: attempts, middleware.ReasonForPoisonedKey: reason,
		}
		if err := store.Publish("", m); err != nil {
			t.Errorf("Publish() = %v", err)
		}
	})
}
