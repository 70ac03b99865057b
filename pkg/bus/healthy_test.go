package bus_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestHealthyPaused is REL-76: a consumer that has been paused for a minute is not
// healthy, and says why, until its dependency is back. Without Redis it is healthy.
func TestHealthyPaused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var away, redisAway atomic.Bool
		away.Store(true)
		check := func(context.Context) error {
			switch {
			case !away.Load():
				return nil
			case redisAway.Load():
				return fmt.Errorf("ping cache: %w", bus.ErrUnavailable)
			}
			return errUnavailable
		}
		messages := make(source)
		c := bus.NewConsumer(bus.ConsumerConfig{
			Topic: event.Audit, Subscriber: messages, Probe: check,
			Rest:        func(ctx context.Context, _ event.Event) error { return check(ctx) },
			Unavailable: func(err error) bool { return errors.Is(err, errUnavailable) },
			Log:         testkit.Log(t), Metrics: prometheus.NewRegistry(),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		e := testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})
		m := message.NewMessage(e.ID, testkit.Message(t, e).Payload)
		messages <- m
		time.Sleep(50 * time.Second)
		if err := c.Healthy(ctx); err != nil {
			t.Errorf("Healthy() = %v after 50 s, want nil: the dependency may be restarting", err)
		}
		time.Sleep(20 * time.Second)
		if err := c.Healthy(ctx); err == nil || !strings.Contains(err.Error(), "paused for 1m") || !errors.Is(err, errUnavailable) {
			t.Errorf("Healthy() = %v after 70 s, want the reason", err)
		}
		redisAway.Store(true)
		time.Sleep(20 * time.Second)
		if err := c.Healthy(ctx); err != nil {
			t.Errorf("Healthy() = %v while Redis is the reason, want nil", err)
		}
		away.Store(false)
		<-m.Acked()
		if err := c.Healthy(ctx); err != nil {
			t.Errorf("Healthy() = %v after the dependency is back", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestHealthyJammed is REL-76: a consumer whose slots are all taken, or whose wait list is
// full, is not healthy until events are finished again.
func TestHealthyJammed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		fault error // nil: the handler does not return
		want  string
	}{
		"slots":     {want: "no event of audit-events was finished for"},
		"wait list": {fault: errors.New("fails at first"), want: "the wait list is full: 4 events"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, testkit.Redis(t))
			repaired := make(chan struct{})
			handler := func(ctx context.Context, e event.Event) error {
				select {
				case <-repaired:
					return f.count(ctx, e)
				default:
				}
				if tc.fault != nil {
					return tc.fault
				}
				select {
				case <-repaired:
				case <-ctx.Done():
				}
				return f.count(ctx, e)
			}
			stream := bus.NewSubscriber(bus.SubscriberConfig{
				Client: f.client, Group: "test", Consumer: "a", Window: 4, WaitList: 4, JammedAfter: time.Second, Log: testkit.Log(t),
			})
			testkit.Run(t, bus.NewConsumer(bus.ConsumerConfig{
				Topic: event.Audit, Subscriber: stream, Rest: handler, DeadLetters: f.deadLetters,
				Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
			}))
			f.publish(newMessage(t, event.UserLoggedIn{}))
			if err := stream.Healthy(t.Context()); err != nil {
				t.Errorf("Healthy() = %v at first", err)
			}
			for range 8 {
				f.publish(newMessage(t, event.UserLoggedIn{}))
			}
			testkit.Eventually(t, func() error {
				if err := stream.Healthy(t.Context()); err == nil || !strings.Contains(err.Error(), tc.want) {
					return fmt.Errorf("Healthy() = %w, want %s", err, tc.want)
				}
				return nil
			})
			close(repaired)
			testkit.Eventually(t, func() error { return stream.Healthy(t.Context()) })
		})
	}
}

// TestHealthyIdle is REL-76: a consumer that has nothing to do is healthy, however long.
func TestHealthyIdle(t *testing.T) {
	t.Parallel()
	f := newFixture(t, testkit.Redis(t))
	stream := bus.NewSubscriber(bus.SubscriberConfig{
		Client: f.client, Group: "test", Consumer: "a", JammedAfter: time.Millisecond, Log: testkit.Log(t),
	})
	testkit.Run(t, bus.NewConsumer(bus.ConsumerConfig{
		Topic: event.Audit, Subscriber: stream, Rest: f.count, DeadLetters: f.deadLetters, Log: testkit.Log(t), Metrics: prometheus.NewRegistry(),
	}))
	m := newMessage(t, event.UserLoggedIn{})
	f.publish(m)
	f.wantSeen(m)
	f.wantNothingPending()
	testkit.Eventually(t, func() error { return stream.Healthy(t.Context()) })
}

// TestHealthyUnreadable is REL-76: a consumer whose stream cannot be read is not healthy,
// also if Redis was away when that began, and if the same subscriber can read another
// stream.
func TestHealthyUnreadable(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")}
	server, err := localserver.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	client := testkit.OpenRedis(t, server.URL, time.Second)
	log := &testkit.Buffer{}
	stream := bus.NewSubscriber(bus.SubscriberConfig{
		Client: client, Group: "test", Consumer: "a", UnreadableAfter: time.Second, Log: slog.New(slog.NewTextHandler(log, nil)),
	})
	for _, topic := range []event.Topic{event.Audit, event.Email} {
		if _, err := stream.Subscribe(t.Context(), string(topic)); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, func() error { return client.XInfoStream(t.Context(), string(topic)).Err() })
	}
	t.Cleanup(func() {
		if err := stream.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	away := time.NewTimer(2 * time.Second)
	<-away.C
	if err := stream.Healthy(t.Context()); err != nil {
		t.Errorf("Healthy() = %v while Redis is away", err)
	}
	options.Port = server.Port
	if server, err = localserver.StartRedis(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error { return client.Set(t.Context(), string(event.Email), "not a stream", 0).Err() })
	testkit.Eventually(t, func() error {
		if err := stream.Healthy(t.Context()); err == nil || !strings.Contains(err.Error(), "WRONGTYPE") {
			return fmt.Errorf("Healthy() = %w, want that reads fail", err)
		}
		return nil
	})
	for range 20 { // The other stream is read meanwhile.
		if err := client.XAdd(t.Context(), &redis.XAddArgs{Stream: string(event.Audit), Values: []string{"a", "b"}}).Err(); err != nil {
			t.Fatal(err)
		}
		if stream.Healthy(t.Context()) == nil {
			t.Fatal("Healthy() = nil though one stream cannot be read")
		}
	}
	if err := client.Del(t.Context(), string(event.Email)).Err(); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, func() error { return stream.Healthy(t.Context()) })
}

// TestDelayedLog is REL-75: events that are delayed are a line at the beginning, one a
// minute and one at the end, with the id of one of them.
func TestDelayedLog(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		log, messages, began := &testkit.Buffer{}, make(source), time.Now()
		errLocked := errors.New("row is locked")
		c := bus.NewConsumer(bus.ConsumerConfig{
			Topic: event.Audit, Subscriber: messages, Metrics: prometheus.NewRegistry(),
			Rest: func(context.Context, event.Event) error {
				if time.Since(began) < 150*time.Second {
					return errLocked
				}
				return nil
			},
			Contended: func(err error) bool { return errors.Is(err, errLocked) },
			Log:       slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelWarn})),
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		var sent []*message.Message
		for range 50 {
			e := testkit.NewEvent(t.Context(), "subject", event.UserLoggedIn{})
			m := message.NewMessage(e.ID, testkit.Message(t, e).Payload)
			messages <- m
			sent = append(sent, m)
		}
		for _, m := range sent {
			<-m.Acked()
		}
		if n := log.Count("event delayed; retrying"); n != 3 || log.Count("level=") != n || log.Count(`error="event 0`) != n {
			t.Errorf("log = %s, want three lines with an event", log)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// source is a message.Subscriber of messages made by a test.
type source chan *message.Message

func (s source) Subscribe(ctx context.Context, _ string) (<-chan *message.Message, error) {
	out := make(chan *message.Message)
	go func() {
		defer close(out)
		for {
			select {
			case <-ctx.Done():
				return
			case m := <-s:
				out <- m
			}
		}
	}()
	return out, nil
}

func (s source) Close() error { return nil }
