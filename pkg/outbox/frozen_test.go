package outbox_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/url"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// freezer is a proxy to Postgres. Once it is frozen, nothing that its clients send
// arrives any more, and their connections stay open: to Postgres they look like a
// process that was stopped.
type freezer struct {
	url    string
	left   atomic.Int64 // how often clients may still send
	broker atomic.Bool  // whether clients freeze when they send to the broker
	frozen chan struct{}
	freeze func()
	end    chan struct{}
	close  func() // closes all connections
}

func newFreezer(t *testing.T, database string) *freezer {
	t.Helper()
	target, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	var lc net.ListenConfig
	listener, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f := &freezer{frozen: make(chan struct{}), end: make(chan struct{})}
	f.freeze = sync.OnceFunc(func() { close(f.frozen) })
	f.left.Store(math.MaxInt64)
	var running sync.WaitGroup
	host := target.Host
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() { f.serve(conn, host) })
		}
	})
	f.close = sync.OnceFunc(func() {
		close(f.end)
		listener.Close()
		running.Wait()
	})
	t.Cleanup(f.close)
	target.Host = listener.Addr().String()
	f.url = target.String()
	return f
}

// freezeAfter lets clients send n more times before they freeze.
func (f *freezer) freezeAfter(n int) { f.left.Store(int64(n)) }

func (f *freezer) serve(client net.Conn, target string) {
	defer client.Close()
	server, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", target)
	if err != nil {
		return
	}
	defer server.Close()
	ended := make(chan struct{})
	var others sync.WaitGroup
	defer others.Wait()
	defer close(ended)
	others.Go(func() {
		_, _ = io.Copy(client, server) // It ends with the connections.
		client.Close()
	})
	others.Go(func() {
		select {
		case <-f.end:
		case <-ended:
		}
		client.Close()
		server.Close()
	})
	buffer := make([]byte, 64<<10)
	for {
		n, err := client.Read(buffer)
		f.send()
		if err == nil {
			_, err = server.Write(buffer[:n])
		}
		if err != nil {
			return
		}
	}
}

// send returns unless the clients are frozen.
func (f *freezer) send() {
	if f.left.Add(-1) < 0 {
		f.freeze()
		<-f.end
	}
}

// freezing is the broker of a process that can freeze.
type freezing struct {
	outbox.Publisher
	process *freezer
}

func (f freezing) PublishNumbered(topic string, highest []bus.HighestNumber, messages ...*message.Message) error {
	if f.process.broker.Load() {
		f.process.freezeAfter(0)
	}
	f.process.send()
	return f.Publisher.PublishNumbered(topic, highest, messages...)
}

// TestFrozenRelay is REL-46: a relay freezes after any of the round trips in which it
// publishes an event. Another relay publishes new events at once, and the event of the
// frozen one after the bound on idle transactions.
func TestFrozenRelay(t *testing.T) {
	t.Parallel()
	moments := map[string]func(*freezer){"before it publishes": func(f *freezer) { f.broker.Store(true) }}
	for sent := range 10 {
		moments[fmt.Sprint("after round trip ", sent)] = func(f *freezer) { f.freezeAfter(sent) }
	}
	for name, freeze := range moments {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := testkit.DatabaseURL(t, outbox.Schema())
			proxy := newFreezer(t, address)
			defer proxy.close() // before the pool, which would wait for Postgres
			db, frozen, client := testkit.OpenDatabase(t, address), testkit.OpenDatabase(t, proxy.url), testkit.Redis(t)
			relay(t, frozen, client, freezing{bus.NewPublisher(client), proxy})
			addEvents(t, db, 1, "before", event.Audit) // so that all statements are prepared
			wantEntries(t, testkit.Timeout, client, event.Audit, 1)

			freeze(proxy)
			addEvents(t, db, 1, "frozen", event.Audit)
			select {
			case <-proxy.frozen:
			case <-time.After(testkit.Timeout):
				t.Fatal("the relay sends nothing to Postgres")
			}
			onStream := entries(t, client, event.Audit)
			addEvents(t, db, 1, "after", event.Audit)
			relay(t, db, client, bus.NewPublisher(client))
			testkit.Within(t, 4*time.Second, func() error {
				if n := entries(t, client, event.Audit); n <= onStream {
					return fmt.Errorf("%d entries on the stream, want another one", n)
				}
				return nil
			})
			testkit.Eventually(t, func() error {
				if ids := published(t, client, event.Audit); len(ids) != 3 {
					return fmt.Errorf("%d events on the stream, want 3", len(ids))
				}
				return nil
			})
		})
	}
}

// stoppedDatabase is the variable that makes the test binary a relay on that database.
const stoppedDatabase = "OUTBOX_STOPPED_DATABASE"

// relayUntilStopped runs a relay that says on standard output when it has claimed rows,
// and then waits.
func relayUntilStopped(database string) {
	pool, err := pgxpool.New(context.Background(), database)
	if err != nil {
		panic(err)
	}
	db := postgres.NewPool(pool)
	claimed := publisherFunc(func(string) error {
		fmt.Println("claimed")
		select {}
	})
	log, reg := slog.New(slog.DiscardHandler), prometheus.NewRegistry()
	// The numbers were checked before, so it needs no Redis.
	epochs := outbox.NewEpochs(db, redis.NewClient(&redis.Options{}), "test", log, reg)
	panic(outbox.NewRelay(db, claimed, epochs, log, reg).Run(context.Background()))
}

type publisherFunc func(topic string) error

func (f publisherFunc) PublishNumbered(topic string, _ []bus.HighestNumber, _ ...*message.Message) error {
	return f(topic)
}

// TestStoppedProcess is REL-46 with a process that gets SIGSTOP after it has claimed rows.
func TestStoppedProcess(t *testing.T) {
	t.Parallel()
	address := testkit.DatabaseURL(t, outbox.Schema())
	db, client := testkit.OpenDatabase(t, address), testkit.Redis(t)
	addEvents(t, db, 1, "stopped", event.Audit)
	if err := newEpochs(t, db, client).Check(t.Context(), event.Audit); err != nil {
		t.Fatal(err)
	}
	process := exec.CommandContext(t.Context(), os.Args[0])
	process.Env = append(os.Environ(), stoppedDatabase+"="+address)
	output, err := process.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = process.Process.Kill() // SIGKILL ends a stopped process, too.
		_ = process.Wait()         // It was killed.
	}()
	if line, err := bufio.NewReader(output).ReadString('\n'); err != nil || line != "claimed\n" {
		t.Fatalf("the process says %q, %v", line, err)
	}
	if err := process.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	relay(t, db, client, bus.NewPublisher(client))
	addEvents(t, db, 1, "other", event.Audit)
	wantEntries(t, 4*time.Second, client, event.Audit, 1)
	wantEntries(t, testkit.Timeout, client, event.Audit, 2)
}

// TestLockedNumbers is REL-46: while a transaction that never ends holds the lock of one
// topic's numbers, the other topics are published, and the wait for it is bounded.
func TestLockedNumbers(t *testing.T) {
	t.Parallel()
	db, client, log := testkit.Database(t, outbox.Schema()), testkit.Redis(t), &testkit.Buffer{}
	testkit.Run(t, outbox.NewRelay(db, bus.NewPublisher(client), newEpochs(t, db, client), slog.New(slog.NewTextHandler(log, nil)), prometheus.NewRegistry()))
	addEvents(t, db, 1, "subject", event.Audit)
	wantEntries(t, testkit.Timeout, client, event.Audit, 1)
	frozen, err := db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = frozen.Rollback(context.Background()) }() // It has ended unless the test failed.
	if _, err := frozen.Exec(t.Context(), `UPDATE outbox_sequences SET last_seq = last_seq WHERE topic = $1`, event.Audit); err != nil {
		t.Fatal(err)
	}
	addEvents(t, db, 1, "subject", event.Audit, event.Email)
	wantEntries(t, testkit.Timeout, client, event.Email, 1)
	testkit.Eventually(t, func() error {
		if log.Count("lock timeout") == 0 {
			return errors.New("the relay still waits for the lock")
		}
		return nil
	})
	if err := frozen.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantEntries(t, testkit.Timeout, client, event.Audit, 2)
}
