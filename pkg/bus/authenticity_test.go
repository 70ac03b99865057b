package bus_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
)

// newChecked returns a fixture whose consumer checks signatures and replays dead letters.
func newChecked(t *testing.T) *fixture {
	t.Helper()
	f := newFixture(t, testkit.Redis(t))
	f.check = func(reg prometheus.Registerer) *bus.Authenticity { return testkit.Authenticity(t, testkit.Log(t), reg) }
	f.due = []message.Subscriber{bus.NewPoller(f.deadLetters.Replays(testkit.Log(t)))}
	return f
}

// signed returns what a producer publishes as e on the topic.
func signed(t *testing.T, signer *event.Signer, topic event.Topic, e event.Event) *message.Message {
	t.Helper()
	m := testkit.Message(t, e)
	m.Metadata.Set(bus.KeyIDKey, signer.KeyID())
	m.Metadata.Set(bus.SignatureKey, signer.Sign(topic, e.ID, e.Name, m.Payload))
	return m
}

// forgeries returns entries that a service with access to the stream could add, by what is
// wrong with each, and the beginning of the reason of their dead letters.
func forgeries(t *testing.T) map[string]*message.Message {
	t.Helper()
	login := func() event.Event {
		e := testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{SessionID: "s"})
		e.ProducerSeq = 7
		return e
	}
	auth, email := testkit.Signer(t, "auth-service"), testkit.Signer(t, "email-service")
	changed := signed(t, auth, event.Audit, login())
	changed.Payload = []byte(strings.Replace(string(changed.Payload), `"subject":"subject"`, `"subject":"another"`, 1))
	renumbered := signed(t, auth, event.Audit, login())
	renumbered.Payload = []byte(strings.Replace(string(renumbered.Payload), `"producerSeq":7`, `"producerSeq":8`, 1))
	marked := testkit.Message(t, login())
	marked.Metadata.Set(bus.RefusedKey, "")
	own := login()
	own.Producer = "email-service"
	unknown, err := event.NewSigner("auth-service", "another secret: 9Rk2vB7xTq4mWc8nLz5p")
	if err != nil {
		t.Fatal(err)
	}
	return map[string]*message.Message{
		"unsigned: plain":              testkit.Message(t, login()),
		"unsigned: with our marks":     marked,
		"forged: changed":              changed,
		"forged: renumbered":           renumbered,
		"forged: moved":                signed(t, auth, event.User, login()),
		"forged: by another":           signed(t, email, event.Audit, login()),
		"forged: unknown key":          signed(t, unknown, event.Audit, login()),
		"wrong producer: not its name": signed(t, email, event.Audit, own),
	}
}

// TestSEC114ForgedEventsAreDeadLetters is SEC-114: an event that its producer has not
// published is not handled and not recorded as consumed. It becomes a dead letter that says
// why, also after a replay, and is counted.
func TestSEC114ForgedEventsAreDeadLetters(t *testing.T) {
	t.Parallel()
	f := newChecked(t)
	f.consume("a", nil)
	reasons := map[string]string{} // by event id
	for fault, m := range forgeries(t) {
		reasons[m.UUID], _, _ = strings.Cut(fault, ":")
		f.publish(m)
	}
	genuine := testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})
	f.publish(signed(t, testkit.Signer(t, "auth-service"), event.Audit, genuine))
	f.wantSeen(testkit.Message(t, genuine))

	check := func(attempts int) {
		t.Helper()
		found := f.wantDeadLetters(len(reasons))
		for _, d := range found {
			if d.EventID == nil || d.Class != "permanent" || !strings.HasPrefix(d.Reason, reasons[*d.EventID]) {
				t.Errorf("dead letter %+v, want the reason %q", d, reasons[*d.EventID])
			}
			testkit.Eventually(t, func() error {
				now, err := f.deadLetters.Get(t.Context(), d.ID)
				if err == nil && (now.Attempts != attempts || now.Status != "open") {
					err = fmt.Errorf("%s after %d attempts, want open after %d", now.Status, now.Attempts, attempts)
				}
				return err
			})
		}
	}
	check(1)
	for _, d := range f.wantDeadLetters(len(reasons)) {
		if err := f.deadLetters.Replay(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
	}
	check(2)
	var numbered int
	if err := f.db.QueryRow(t.Context(), `SELECT count(*) FROM dead_letters WHERE producer IS NOT NULL OR producer_seq IS NOT NULL`).Scan(&numbered); err != nil || numbered != 0 {
		t.Errorf("%d dead letters have the number of an event, %v", numbered, err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.seen) != 1 || len(f.consumed) != 1 {
		t.Errorf("%d events were handled and %d recorded, want the genuine one", len(f.seen), len(f.consumed))
	}
	counted := counters(t, f.metrics, "headgate_event_signatures_total")
	for result, want := range map[string]float64{"valid": 1, "unsigned": 4, "forged": 10, "wrong_producer": 2} { // each twice, with the replay
		if counted[result] != want {
			t.Errorf("%s: %v, want %v", result, counted[result], want)
		}
	}
}

// counters returns the values of a counter by its label result.
func counters(t *testing.T, reg *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			for _, label := range m.GetLabel() {
				if family.GetName() == name && label.GetName() == "result" {
					found[label.GetValue()] += m.GetCounter().GetValue()
				}
			}
		}
	}
	return found
}

// TestSEC114ForgedEventDoesNotReplaceTheGenuine is SEC-114: a forged event with the id of
// another one keeps neither it nor its dead letter away.
func TestSEC114ForgedEventDoesNotReplaceTheGenuine(t *testing.T) {
	t.Parallel()
	f := newChecked(t)
	f.consume("a", nil)
	e := testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})
	e.Name, e.ProducerSeq = "user.logged_in.v9", 7 // A version that the consumer does not know.
	forged := testkit.Message(t, e)
	for range 2 {
		f.publish(forged)
	}
	f.wantDeadLetters(1)
	f.publish(signed(t, testkit.Signer(t, "auth-service"), event.Audit, e))
	f.wantDeadLetters(2)
	var genuine, refused int
	const query = `SELECT count(*) FILTER (WHERE producer_seq = 7 AND NOT refused), count(*) FILTER (WHERE refused) FROM dead_letters WHERE event_id = $1`
	if err := f.db.QueryRow(t.Context(), query, e.ID).Scan(&genuine, &refused); err != nil || genuine != 1 || refused != 1 {
		t.Errorf("%d genuine and %d refused dead letters, %v, want one of each", genuine, refused, err)
	}
}

// TestSEC116KeyIsAddedLate is SEC-116: events whose key was not known yet can be replayed
// when it is, and dead letters of before a rotation when their key is gone.
func TestSEC116KeyIsAddedLate(t *testing.T) {
	t.Parallel()
	f := newChecked(t)
	signer := func(secret string) *event.Signer {
		s, err := event.NewSigner("auth-service", secret)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	next := signer("the next secret: 9Rk2vB7xTq4mWc8nLz5p")
	before, after := testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{}), testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})
	before.Name = "user.logged_in.v9"
	run := f.consume("a", nil)
	f.publish(signed(t, testkit.Signer(t, "auth-service"), event.Audit, before), signed(t, next, event.Audit, after))
	found := f.wantDeadLetters(2)
	run.Stop()

	// Only the next key is known now.
	f.check = func(reg prometheus.Registerer) *bus.Authenticity {
		keys, err := event.ParsePublicKeys(next.PublicKey())
		if err != nil {
			t.Fatal(err)
		}
		return bus.NewAuthenticity(bus.PublicKeys{EventSignatures: "require"}, keys, testkit.Log(t), reg)
	}
	f.due = []message.Subscriber{bus.NewPoller(f.deadLetters.Replays(testkit.Log(t)))} // The other one is closed.
	f.consume("a", nil)
	for _, d := range found {
		if err := f.deadLetters.Replay(t.Context(), d.ID); err != nil {
			t.Fatal(err)
		}
	}
	f.wantSeen(testkit.Message(t, after))
	for _, d := range found {
		if *d.EventID != before.ID {
			continue
		}
		testkit.Eventually(t, func() error {
			now, err := f.deadLetters.Get(t.Context(), d.ID)
			if err == nil && (now.Attempts != 2 || !strings.Contains(now.Reason, bus.ErrUnknownVersion.Error())) {
				err = fmt.Errorf("after %d attempts: %s, want that the version is unknown, twice", now.Attempts, now.Reason)
			}
			return err
		})
	}
}

// TestSEC116UnsignedDuringAnUpgrade is SEC-116: while the previous release is running, its
// events are handled. A signature that is there must be valid nevertheless, and the producer
// one of the event's.
func TestSEC116UnsignedDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	f := newChecked(t)
	log := &testkit.Buffer{}
	f.check = func(reg prometheus.Registerer) *bus.Authenticity {
		return bus.NewAuthenticity(bus.PublicKeys{EventSignatures: "accept-unsigned"}, event.PublicKeys{}, slog.New(slog.NewTextHandler(log, nil)), reg)
	}
	f.consume("a", nil)
	previous := testkit.Message(t, testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{}))
	stranger := testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})
	stranger.Producer = "email-service"
	f.publish(previous, testkit.Message(t, stranger))
	for range 20 {
		f.publish(signed(t, testkit.Signer(t, "auth-service"), event.Audit, testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})))
	}
	f.wantSeen(previous)
	f.wantDeadLetters(21)
	if !strings.Contains(log.String(), "events without a signature are accepted") {
		t.Errorf("the log does not say that unsigned events are accepted\n%s", log)
	}
	if n := strings.Count(log.String(), "events refused"); n != 2 {
		t.Errorf("%d lines about refused events, want one for each reason\n%s", n, log)
	}
}

// TestSEC114FollowerIgnoresForgedEvents is SEC-114: a follower of a stream sees only what its
// producers have published.
func TestSEC114FollowerIgnoresForgedEvents(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	seen := make(chan event.Event, 10)
	testkit.Run(t, bus.NewFollower(client, event.User, func(e event.Event) { seen <- e },
		testkit.Authenticity(t, testkit.Log(t), prometheus.NewRegistry()), testkit.Log(t)))
	revoked := event.SessionRevoked{SessionID: uuid.NewString()}
	forged, genuine := testkit.NewEvent(t.Context(), "ann", revoked), testkit.NewEvent(t.Context(), "ann", revoked)
	stranger := testkit.NewEvent(t.Context(), "ann", revoked)
	stranger.Producer = "user-service"
	if err := bus.NewPublisher(client).Publish(string(event.User), testkit.Message(t, forged)); err != nil {
		t.Fatal(err)
	}
	testkit.Publish(t, client, event.User, stranger, genuine)
	select {
	case e := <-seen:
		if e.ID != genuine.ID {
			t.Errorf("the follower saw the event of %s that was forged", e.Producer)
		}
	case <-time.After(testkit.Timeout):
		t.Error("the follower saw nothing")
	}
}

// TestSEC114AcknowledgedForgeriesProveNothing is SEC-114: what a group has handled is known
// from the stream without the events that were forged.
func TestSEC114AcknowledgedForgeriesProveNothing(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	topic := string(event.Audit)
	genuine := testkit.NewEvent(t.Context(), "ann", event.UserLoggedIn{})
	if err := bus.NewPublisher(client).Publish(topic, testkit.Message(t, testkit.NewEvent(t.Context(), "ann", event.UserLoggedIn{}))); err != nil {
		t.Fatal(err)
	}
	testkit.Publish(t, client, event.Audit, genuine)
	if err := client.XGroupCreate(t.Context(), topic, "g", "0").Err(); err != nil {
		t.Fatal(err)
	}
	read, err := client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "g", Consumer: "c", Streams: []string{topic, ">"}}).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range read[0].Messages {
		if err := client.XAck(t.Context(), topic, "g", entry.ID).Err(); err != nil {
			t.Fatal(err)
		}
	}
	var seen []string
	err = testkit.Authenticity(t, testkit.Log(t), prometheus.NewRegistry()).Acknowledged(t.Context(), client, topic, "g", func(e event.Event) { seen = append(seen, e.ID) })
	if err != nil || len(seen) != 1 || seen[0] != genuine.ID {
		t.Errorf("acknowledged %v, %v, want the genuine event", seen, err)
	}
}
