package bus_test

import (
	"context"
	"errors"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

func TestEveryMessageIsHandledAndAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	var messages []*message.Message
	for range 500 {
		messages = append(messages, newMessage(t, event.UserLoggedIn{}))
	}
	f.publish(messages[:250]...) // before there is a group
	f.consume("a", nil)
	f.publish(messages[250:]...)
	f.wantSeen(messages...)
	f.wantNothingPending()
	for id, n := range f.seen {
		if n != 1 {
			t.Errorf("message %s was handled %d times", id, n)
		}
	}
}

// TestMalformedEntries: each malformed entry becomes a dead letter, and the consumer
// goes on. The stock subscriber stops for good at the first one.
func TestMalformedEntries(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	f.consume("a", nil)
	topic := string(event.Audit)
	good := newMessage(t, event.UserLoggedIn{})
	for _, values := range []map[string]any{
		{"junk": "1"},
		{redisstream.UUIDHeaderKey: "x", "metadata": "\xff\xff\xff", "payload": "{}"},
		{redisstream.UUIDHeaderKey: "x", "metadata": "", "payload": "not JSON \x00 \xff"},
		{redisstream.UUIDHeaderKey: uuid.NewString(), "metadata": "", "payload": string(good.Payload)},
		{redisstream.UUIDHeaderKey: "", "payload": ""},
	} {
		if err := f.client.XAdd(t.Context(), &redis.XAddArgs{Stream: topic, Values: values}).Err(); err != nil {
			t.Fatal(err)
		}
	}
	f.publish(good)
	f.wantSeen(good)
	for _, deadLetter := range f.wantDeadLetters(5) {
		if deadLetter.Class != "permanent" || deadLetter.Attempts != 1 || deadLetter.Reason == "" || deadLetter.Stream != topic || deadLetter.Status != "open" {
			t.Errorf("dead letter = %+v", deadLetter)
		}
		if detail, err := f.deadLetters.Get(t.Context(), deadLetter.ID); err != nil || detail.Payload == nil || detail.EntryID == "" {
			t.Errorf("detail = %+v, %v", detail, err)
		}
	}
	f.wantNothingPending()
}

// TestLostGroup: the subscriber creates its group again after Redis lost its data.
// The stock subscriber never does.
func TestLostGroup(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	f.consume("a", nil)
	for range 3 {
		m := newMessage(t, event.UserLoggedIn{})
		f.publish(m)
		f.wantSeen(m)
		flush(t, f.client)
	}
}

// flush empties Redis and waits for the next millisecond, so that no new entry gets
// the id of a lost one.
func flush(t *testing.T, client redis.UniversalClient) {
	t.Helper()
	now := func() int64 {
		at, err := client.Time(t.Context()).Result()
		if err != nil {
			t.Fatal(err)
		}
		return at.UnixMilli()
	}
	if err := client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	for flushed := now(); now() == flushed; {
	}
}

func TestRedisRestart(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(t.TempDir(), "redis"), Durable: true}
	server, err := localserver.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	client := testkit.OpenRedis(t, server.URL, time.Second)
	f := newFixture(t, client)
	consumer := f.consume("a", nil)
	first := newMessage(t, event.UserLoggedIn{})
	f.publish(first)
	f.wantSeen(first)
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := bus.NewPublisher(client).Publish(string(event.Audit), newMessage(t, event.UserLoggedIn{})); err == nil {
		t.Error("Publish while Redis is unavailable = nil")
	}
	options.Port = server.Port
	if server, err = localserver.StartRedis(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	second := newMessage(t, event.UserLoggedIn{})
	f.publish(second)
	f.wantSeen(second)
	consumer.Stop()
	if err := server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRetries: a message gets three attempts, one and two seconds apart, each one
// recorded, and no other message waits for them. With Watermill's defaults the delay
// would be constant.
func TestRetries(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	bad, good := newMessage(t, event.UserLoggedIn{}), newMessage(t, event.UserLoggedIn{})
	var healthyAfter atomic.Int64
	start := time.Now()
	f.consume("a", func(ctx context.Context, e event.Event) error {
		if e.ID == bad.UUID {
			return errors.New("no luck")
		}
		healthyAfter.Store(int64(time.Since(start)))
		return f.count(ctx, e)
	})
	f.publish(bad, good)
	f.wantSeen(good)
	if d := time.Duration(healthyAfter.Load()); d > 2500*time.Millisecond {
		t.Errorf("the healthy message was handled after %s", d)
	}
	deadLetter := f.wantDeadLetters(1)[0]
	if deadLetter.Class != "message" || deadLetter.Attempts != 3 || deadLetter.Reason != "no luck" || *deadLetter.EventID != bad.UUID || *deadLetter.Type != "user.logged_in.v1" {
		t.Errorf("dead letter = %+v", deadLetter)
	}
	detail, err := f.deadLetters.Get(t.Context(), deadLetter.ID)
	if err != nil || len(detail.Errors) != 3 {
		t.Fatalf("detail = %+v, %v", detail, err)
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second} {
		if got := detail.Errors[i+1].At.Sub(detail.Errors[i].At); got < want*8/10 || got > want*3 {
			t.Errorf("pause %d = %s, want about %s", i+1, got, want)
		}
	}
	f.wantNothingPending()
}

func TestPermanentErrorsAndPanics(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	permanent, panics := newMessage(t, event.UserLoggedIn{}), newMessage(t, event.UserLoggedIn{})
	f.consume("a", func(_ context.Context, e event.Event) error {
		if e.ID == panics.UUID {
			panic("oops")
		}
		return bus.Permanent(errors.New("never"))
	})
	f.publish(permanent, panics)
	for _, deadLetter := range f.wantDeadLetters(2) {
		want := map[string]int{permanent.UUID: 1, panics.UUID: 3}[*deadLetter.EventID]
		if deadLetter.Attempts != want {
			t.Errorf("%s: %d attempts, want %d", deadLetter.Reason, deadLetter.Attempts, want)
		}
	}
}

func TestUnknownNamesAreAcknowledged(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	f.consume("a", nil)
	f.publish(newMessage(t, event.UserLoggedOut{}))
	last := newMessage(t, event.UserLoggedIn{})
	f.publish(last)
	f.wantSeen(last)
	f.wantNothingPending()
	f.wantDeadLetters(0)
}

// TestSlowHandler: while a handler runs, neither its own consumer nor another one
// delivers the message again. The stock subscriber claims slow messages from itself.
func TestSlowHandler(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	release := make(chan struct{})
	slow := func(ctx context.Context, e event.Event) error {
		if err := f.count(ctx, e); err != nil {
			return err
		}
		<-release
		return nil
	}
	f.consume("a", slow)
	f.consume("b", slow)
	m := newMessage(t, event.UserLoggedIn{})
	f.publish(m)
	f.wantSeen(m)
	// Three times MaxIdle: both consumers have tried to claim abandoned entries.
	deadline := time.NewTimer(1800 * time.Millisecond)
	<-deadline.C
	close(release)
	f.wantNothingPending()
	if n := f.seen[m.UUID]; n != 1 {
		t.Errorf("handled %d times", n)
	}
}

// TestDeadConsumer: entries of a consumer that died are claimed and handled.
func TestDeadConsumer(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	m := newMessage(t, event.UserLoggedIn{})
	f.publish(m)
	topic := string(event.Audit)
	if err := f.client.XGroupCreate(t.Context(), topic, "test", "0").Err(); err != nil {
		t.Fatal(err)
	}
	read, err := f.client.XReadGroup(t.Context(), &redis.XReadGroupArgs{Group: "test", Consumer: "dead", Streams: []string{topic, ">"}}).Result()
	if err != nil || len(read[0].Messages) != 1 {
		t.Fatalf("read = %v, %v", read, err)
	}
	f.consume("b", nil)
	f.wantSeen(m)
	f.wantNothingPending()
}

// TestClose: messages in flight are finished, their context does not end, nothing is
// left pending, and the client stays open.
func TestClose(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	entered, release := make(chan struct{}, 10), make(chan struct{})
	consumer := f.consume("a", func(ctx context.Context, e event.Event) error {
		entered <- struct{}{}
		<-release
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return f.count(ctx, e)
	})
	var messages []*message.Message
	for range 10 {
		messages = append(messages, newMessage(t, event.UserLoggedIn{}))
	}
	f.publish(messages...)
	for range 10 {
		<-entered
	}
	consumer.Cancel()
	close(release)
	consumer.Stop()
	f.wantSeen(messages...)
	f.wantNothingPending()
}

// TestStopLeavesWorkItsContext: the context of a message in flight goes on when
// reading ends, and the message can still be acknowledged.
func TestStopLeavesWorkItsContext(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	subscriber := bus.NewSubscriber(bus.SubscriberConfig{Client: f.client, Group: "test", Consumer: "a", Log: testkit.Log(t)})
	reading, stop := context.WithCancel(t.Context())
	defer stop()
	messages, err := subscriber.Subscribe(reading, string(event.Audit))
	if err != nil {
		t.Fatal(err)
	}
	f.publish(newMessage(t, event.UserLoggedIn{}))
	m := <-messages
	stop()
	if err := m.Context().Err(); err != nil {
		t.Errorf("the context of a message in flight ended when reading ended: %v", err)
	}
	m.Ack()
	if another, open := <-messages; open {
		t.Errorf("message %s was delivered after the stop", another.UUID)
	}
	if err := m.Context().Err(); err == nil {
		t.Error("the context of an acknowledged message has not ended")
	}
	f.wantNothingPending()
}

// TestCloseWhileRedisIsFrozen: Close does not wait for ever for a Redis that does not
// answer.
func TestCloseWhileRedisIsFrozen(t *testing.T) {
	t.Parallel()
	server, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(server.Signal(syscall.SIGCONT), server.Stop(context.Background())); err != nil {
			t.Error(err)
		}
	}()
	client := testkit.OpenRedis(t, server.URL, 500*time.Millisecond)
	f := newFixture(t, client)
	entered, release := make(chan struct{}), make(chan struct{})
	consumer := f.consume("a", func(ctx context.Context, e event.Event) error {
		close(entered)
		<-release
		return f.count(ctx, e)
	})
	m := newMessage(t, event.UserLoggedIn{})
	f.publish(m)
	<-entered
	if err := server.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	close(release) // Redis does not answer its acknowledgement.
	f.wantSeen(m)
	start := time.Now()
	consumer.Stop()
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("Close took %s", took)
	}
}

// TestWireFormat: watermill-redisstream reads what our publisher writes, and the
// other way round.
func TestWireFormat(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	ctx, cancel := context.WithTimeout(t.Context(), testkit.Timeout)
	defer cancel()
	stock, err := redisstream.NewPublisher(redisstream.PublisherConfig{Client: client}, nil)
	if err != nil {
		t.Fatal(err)
	}
	sent := newMessage(t, event.UserLoggedIn{SessionID: "s"})
	if err := stock.Publish("a", sent); err != nil {
		t.Fatal(err)
	}
	ours := bus.NewSubscriber(bus.SubscriberConfig{Client: client, Group: "g", Consumer: "c", Log: testkit.Log(t)})
	messages, err := ours.Subscribe(ctx, "a")
	if err != nil {
		t.Fatal(err)
	}
	same(t, messages, sent)
	if err := ours.Close(); err != nil {
		t.Error(err)
	}

	if err := bus.NewPublisher(client).Publish("b", sent); err != nil {
		t.Fatal(err)
	}
	theirs, err := redisstream.NewSubscriber(redisstream.SubscriberConfig{Client: client, ConsumerGroup: "g"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	messages, err = theirs.Subscribe(ctx, "b")
	if err != nil {
		t.Fatal(err)
	}
	same(t, messages, sent)
}

func same(t *testing.T, messages <-chan *message.Message, want *message.Message) {
	t.Helper()
	got, ok := <-messages
	if !ok {
		t.Fatal("no message")
	}
	got.Ack()
	if got.UUID != want.UUID || string(got.Payload) != string(want.Payload) || got.Metadata.Get("name") != want.Metadata.Get("name") {
		t.Errorf("got %s %v %s, want %s %v %s", got.UUID, got.Metadata, got.Payload, want.UUID, want.Metadata, want.Payload)
	}
}
