package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

// process is a subscriber as in a process of its own.
type process struct {
	subscriber *bus.Subscriber
	received   chan string // ids of messages, which it has acknowledged
	log        *testkit.Buffer
	stop       context.CancelFunc
}

func (f *fixture) process(name string) *process {
	f.t.Helper()
	p := &process{received: make(chan string, 1000), log: &testkit.Buffer{}}
	p.subscriber = bus.NewSubscriber(bus.SubscriberConfig{
		Client: f.client, Group: "test", Consumer: name, Log: slog.New(slog.NewTextHandler(p.log, nil)),
	})
	var ctx context.Context
	ctx, p.stop = context.WithCancel(f.t.Context())
	messages, err := p.subscriber.Subscribe(ctx, string(event.Audit))
	if err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for m := range messages {
			p.received <- m.UUID
			m.Ack()
		}
	}()
	f.t.Cleanup(func() {
		p.stop()
		if err := p.subscriber.Close(); err != nil {
			f.t.Error(err)
		}
		<-done
	})
	return p
}

// publishTo publishes a message, which p must receive, and returns its id.
func (f *fixture) publishTo(p *process) string {
	f.t.Helper()
	m := newMessage(f.t, event.UserLoggedIn{})
	f.publish(m)
	select {
	case id := <-p.received:
		if id != m.UUID {
			f.t.Errorf("received %s, want %s", id, m.UUID)
		}
	case <-time.After(testkit.Timeout):
		f.t.Fatal("nothing received")
	}
	return m.UUID
}

// TestSharedConsumerName is REL-65: of two processes with one consumer name, the second
// reads nothing, says so and is not ready. When the first one stops, the second takes
// over at once. When Redis loses the lease, one of them goes on, and only one.
func TestSharedConsumerName(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	first := f.process("same")
	f.publishTo(first)
	second := f.process("same")
	testkit.Eventually(t, func() error {
		if err := second.subscriber.Healthy(t.Context()); err == nil {
			return errors.New("the second process is ready")
		}
		return nil
	})
	const line = "consumer name is in use by another process"
	testkit.Eventually(t, func() error {
		if second.log.Count(line) == 0 {
			return fmt.Errorf("no line says that the %s", line)
		}
		return nil
	})
	var last string
	for range 20 {
		last = f.publishTo(first)
	}
	if n := second.log.Count(line); n != 1 {
		t.Errorf("%d lines about the consumer name, want 1", n)
	}
	if err := first.subscriber.Healthy(t.Context()); err != nil {
		t.Errorf("the first process is not ready: %v", err)
	}

	flush(t, f.client)
	var messages []*message.Message
	for range 50 {
		messages = append(messages, newMessage(t, event.UserLoggedIn{}))
	}
	f.publish(messages...)
	owner, other := first, second
	for id := ""; id != messages[0].UUID; {
		select {
		case id = <-first.received:
			owner, other = first, second
		case id = <-second.received:
			owner, other = second, first
		case <-time.After(testkit.Timeout):
			t.Fatal("neither process reads after Redis lost its data")
		}
		// The last one of before comes again if the first process had no time to renew its lease
		// before it acknowledged it.
		if id != messages[0].UUID && id != last {
			t.Fatalf("received %s first, want %s", id, messages[0].UUID)
		}
	}
	for _, m := range messages[1:] {
		if id := <-owner.received; id != m.UUID {
			t.Fatalf("received %s, want %s", id, m.UUID)
		}
	}
	f.wantNothingPending()

	// The lease does not expire, so the other process waits unless it is released.
	if err := f.client.Persist(t.Context(), "consumer:owner:"+string(event.Audit)+":test:same").Err(); err != nil {
		t.Fatal(err)
	}
	owner.stop()
	if err := owner.subscriber.Close(); err != nil {
		t.Error(err)
	}
	f.publishTo(other)
	testkit.Eventually(t, func() error { return other.subscriber.Healthy(t.Context()) })
}

// TestSharedNameAndErrors is REL-65: a process that knows that another one has its name
// reads nothing while Redis answers with errors.
func TestSharedNameAndErrors(t *testing.T) {
	t.Parallel()
	server, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	f := newFixture(t, testkit.OpenRedis(t, server.URL, time.Second))
	first := f.process("same")
	f.publishTo(first)
	second := f.process("same")
	testkit.Eventually(t, func() error {
		if second.subscriber.Healthy(t.Context()) == nil {
			return errors.New("the second process is ready")
		}
		return nil
	})
	if err := f.client.Do(t.Context(), "ACL", "SETUSER", "default", "-eval", "-evalsha").Err(); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < 4*time.Second; {
		f.publish(newMessage(t, event.UserLoggedIn{}))
		select {
		case <-first.received:
		case id := <-second.received:
			t.Fatalf("the second process received %s", id)
		case <-time.After(testkit.Timeout):
			t.Fatal("nothing received")
		}
	}
}

// TestNameAfterACrash: a process whose predecessor crashed has its name within the
// lease's few seconds, and is ready all the time.
func TestNameAfterACrash(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	key := "consumer:owner:" + string(event.Audit) + ":test:same"
	if err := f.client.Set(t.Context(), key, "the one that crashed", 3*time.Second).Err(); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	restarted := f.process("same")
	m := newMessage(t, event.UserLoggedIn{})
	f.publish(m)
	ready := time.NewTicker(50 * time.Millisecond)
	defer ready.Stop()
	for received := false; !received; {
		select {
		case <-restarted.received:
			received = true
		case <-ready.C:
			err, waited := restarted.subscriber.Healthy(t.Context()), time.Since(start)
			if err != nil && waited < 3*time.Second { // Later the crashed one is known to live.
				t.Fatalf("not ready after %s: %v", waited, err)
			}
			if waited > testkit.Timeout {
				t.Fatalf("no name after %s: %v", waited, err)
			}
		}
	}
}
