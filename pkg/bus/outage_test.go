package bus_test

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestOutageLog is REL-66: when Redis is away, all parts that use it log one line
// together, and one when it is back.
func TestOutageLog(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(t.TempDir(), "redis"), Durable: true}
	server, err := localserver.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	client := testkit.OpenRedis(t, server.URL, time.Second)
	f := newFixture(t, client)
	p := f.process("a")
	log := slog.New(slog.NewTextHandler(p.log, nil))
	bus.LogOutages(client, log)
	monitor := testkit.Run(t, bus.NewMonitor(bus.MonitorConfig{
		Client: client, Topics: []event.Topic{event.Email}, Interval: 100 * time.Millisecond, Log: log, Metrics: prometheus.NewRegistry(),
	}))
	f.publishTo(p)
	for range 2 {
		before := p.log.Count("level=")
		if err := server.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		outage := time.NewTimer(4 * time.Second)
		<-outage.C
		if n := p.log.Count("level=") - before; n != 1 {
			t.Errorf("%d lines during the outage, want 1:\n%s", n, p.log)
		}
		options.Port = server.Port
		if server, err = localserver.StartRedis(t.Context(), options); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, func() error { return client.Ping(t.Context()).Err() })
		f.publishTo(p)
		testkit.Eventually(t, func() error {
			if n := p.log.Count("level=") - before; n != 2 {
				return fmt.Errorf("%d lines, want 2:\n%s", n, p.log)
			}
			return nil
		})
	}
	monitor.Stop()
	p.stop()
	if err := p.subscriber.Close(); err != nil {
		t.Error(err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestRefusedWrites is REL-75: while Redis refuses writes, as with a full disk, a
// subscriber logs one line for all that it repeats, and one when that is over.
func TestRefusedWrites(t *testing.T) {
	t.Parallel()
	server, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")})
	if err != nil {
		t.Fatal(err)
	}
	client := testkit.OpenRedis(t, server.URL, time.Second)
	f := newFixture(t, client)
	p := f.process("a")
	f.publishTo(p)
	before := p.log.Count("level=WARN")
	refuse := func(replicas string) {
		t.Helper()
		if err := client.ConfigSet(t.Context(), "min-replicas-to-write", replicas).Err(); err != nil {
			t.Fatal(err)
		}
	}
	refuse("1")
	outage := time.NewTimer(4 * time.Second)
	<-outage.C
	if n := p.log.Count("level=WARN") - before; n != 1 || p.log.Count("NOREPLICAS") != 1 {
		t.Errorf("%d warnings during the outage, want 1:\n%s", n, p.log)
	}
	refuse("0")
	testkit.Eventually(t, func() error {
		if p.log.Count("stream commands succeed again") != 1 {
			return fmt.Errorf("not over:\n%s", p.log)
		}
		return nil
	})
	f.publishTo(p)
	p.stop()
	if err := p.subscriber.Close(); err != nil {
		t.Error(err)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Error(err)
	}
}
