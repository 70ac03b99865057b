package bus_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestFollowerNoticesReplacedStream is REL-42: the follower's position is an hour ahead
// of the stream that it reads, because Redis lost the stream, or has an older copy, and
// its clock was ahead. A new event is seen within a second, not an hour later.
func TestFollowerNoticesReplacedStream(t *testing.T) {
	t.Parallel()
	for name, replace := range map[string]func(ctx context.Context, s *replaceable) error{
		"all data lost":  func(ctx context.Context, s *replaceable) error { return s.client.FlushDB(ctx).Err() },
		"stream deleted": func(ctx context.Context, s *replaceable) error { return s.client.Del(ctx, s.topic).Err() },
		"older copy restored": func(ctx context.Context, s *replaceable) error {
			return s.client.RestoreReplace(ctx, s.topic, 0, s.older).Err()
		},
		"restarted without data": func(ctx context.Context, s *replaceable) error {
			s.server.Kill()
			return s.start(ctx)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := &replaceable{t: t, opts: localserver.Options{Dir: t.TempDir()}, topic: string(event.User), seen: make(chan string, 100)}
			if err := s.start(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.opts.Port = s.server.Port
			t.Cleanup(func() {
				if err := s.server.Stop(context.Background()); err != nil {
					t.Error(err)
				}
			})
			s.client = testkit.OpenRedis(t, s.server.URL, bus.EventTimeout)
			testkit.Run(t, bus.NewFollower(s.client, event.User, s.observe, nil, testkit.Log(t)))

			s.publish("first", "*")
			s.want("first")
			fastest := time.Hour
			for round := range 3 {
				s.older = s.client.Dump(t.Context(), s.topic).Val()
				ahead := fmt.Sprintf("ahead-%d", round)
				s.publish(ahead, fmt.Sprintf("%d-0", time.Now().Add(time.Hour).UnixMilli()))
				s.want(ahead)
				if err := replace(t.Context(), s); err != nil {
					t.Fatal(err)
				}
				published := time.Now()
				revoked := fmt.Sprintf("revoked-%d", round)
				s.publish(revoked, "*")
				s.want(revoked)
				fastest = min(fastest, time.Since(published))
			}
			// The machine may be busy, so one round of three must show it.
			if fastest > time.Second {
				t.Errorf("the event after the loss was seen in %s at best, want one second", fastest)
			}
			t.Logf("seen in %s at best", fastest)
		})
	}
}

// replaceable is a Redis whose stream is replaced while a follower reads it.
type replaceable struct {
	t      *testing.T
	opts   localserver.Options
	server *localserver.Server
	client redis.UniversalClient
	topic  string
	older  string // a copy of the stream
	seen   chan string
}

func (s *replaceable) start(ctx context.Context) (err error) {
	s.server, err = localserver.StartRedis(ctx, s.opts)
	return err
}

func (s *replaceable) observe(e event.Event) {
	revoked, err := event.Decode[event.SessionRevoked](e)
	if err != nil {
		s.t.Error(err)
	}
	s.seen <- revoked.SessionID
}

func (s *replaceable) publish(session, entryID string) {
	s.t.Helper()
	m := newMessage(s.t, event.SessionRevoked{SessionID: session})
	values := map[string]any{"_watermill_message_uuid": m.UUID, "payload": []byte(m.Payload), "metadata": ""}
	testkit.Eventually(s.t, func() error {
		return s.client.XAdd(s.t.Context(), &redis.XAddArgs{Stream: s.topic, ID: entryID, Values: values}).Err()
	})
}

// want waits for the event of a session. Others may be seen again.
func (s *replaceable) want(session string) {
	s.t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		select {
		case got := <-s.seen:
			if got == session {
				return
			}
		case <-timeout:
			s.t.Fatalf("%s was not seen", session)
		}
	}
}
