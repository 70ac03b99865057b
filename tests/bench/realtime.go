package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
)

// realtime measures the gateway's WebSockets: memory of each, messages a second to all of them,
// and the time from an event to its clients. The clients run in the bench, on the same cores.
func (b *bench) realtime(ctx context.Context) error {
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	r := &realtimeBench{edge: e, user: uuid.NewString()}
	defer r.close()
	r.gateway, err = e.startGateway(ctx, "gateway-realtime", "REALTIME_MAX_CONNECTIONS_PER_IP=10000", "REALTIME_MAX_CONNECTIONS_PER_USER=10000", "REALTIME_RATE_LIMIT=off")
	if err != nil {
		return err
	}
	if r.token, err = e.token(r.user, uuid.NewString()); err != nil {
		return err
	}
	signer, err := b.signer("user-service")
	if err != nil {
		return err
	}
	r.publisher = bus.NewSigningPublisher(b.redis, signer)
	// A gateway that has just started reads the last five minutes first.
	err = await(ctx, func() (bool, error) {
		err := r.grow(ctx, 1)
		if errors.Is(err, errNotOpened) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		return err
	}
	first, err := r.gateway.resident()
	if err != nil {
		return err
	}
	if err := r.latencies(ctx, 1); err != nil {
		return err
	}
	if err := r.fromCommit(ctx); err != nil {
		return err
	}
	for _, n := range []int{100, 1_000, 5_000} {
		if err := r.grow(ctx, n); err != nil {
			return err
		}
		resident, err := r.gateway.resident()
		if err != nil {
			return err
		}
		b.report.figure("realtime", fmt.Sprintf("gateway, RSS with WebSockets: %d, %.1f KiB for each", n, float64(resident-first)/float64(n-1)/(1<<10)), fmt.Sprintf("%.1f MiB", float64(resident)/(1<<20)))
		if err := r.latencies(ctx, n); err != nil {
			return err
		}
		if err := r.fanOut(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// realtimeBench is a gateway with WebSockets of one user.
type realtimeBench struct {
	*edge

	gateway     server
	user, token string
	publisher   *bus.Publisher
	open        []*wire
	reading     sync.WaitGroup
	arrivals    chan arrival
}

// arrival is when a client got a message, and when that was published.
type arrival struct{ published, got time.Time }

func (r *realtimeBench) close() {
	for _, w := range r.open {
		_ = w.Close() // The connection is not used again.
	}
	r.reading.Wait()
}

// grow opens WebSockets until n are open.
func (r *realtimeBench) grow(ctx context.Context, n int) error {
	if r.arrivals == nil {
		r.arrivals = make(chan arrival, 1_000_000)
	}
	for len(r.open) < n {
		w, err := r.socket(ctx)
		if err != nil {
			return err
		}
		r.open = append(r.open, w)
		r.reading.Go(func() { r.read(w) })
	}
	return nil
}

func (r *realtimeBench) socket(ctx context.Context) (*wire, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.gateway.url+"/api/v1/realtime/ticket", http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("get ticket: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+r.token)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, fmt.Errorf("get ticket: %w", err)
	}
	defer res.Body.Close()
	var answer struct{ Data struct{ Ticket string } }
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil || res.StatusCode != http.StatusCreated {
		return nil, errors.Join(fmt.Errorf("get ticket: %s", res.Status), err)
	}
	w, err := dial(ctx, strings.TrimPrefix(r.gateway.url, "http://"), 30*time.Minute)
	if err != nil {
		return nil, err
	}
	w.r = bufio.NewReaderSize(w.Conn, 512) // Thousands are open.
	_, err = w.Write([]byte("GET /api/v1/realtime/ws?ticket=" + answer.Data.Ticket + " HTTP/1.1\r\nHost: bench\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open WebSocket: %w", err), w.Close())
	}
	switched, err := http.ReadResponse(w.r, nil)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open WebSocket: %w", err), w.Close())
	}
	defer switched.Body.Close()
	if switched.StatusCode != http.StatusSwitchingProtocols {
		return nil, errors.Join(fmt.Errorf("open WebSocket: %w: %s", errNotOpened, switched.Status), w.Close())
	}
	return w, nil
}

var errNotOpened = errors.New("the gateway refused it")

// read notes when messages arrive, and answers pings, until the connection is closed.
func (r *realtimeBench) read(w *wire) {
	for {
		kind, payload, err := frame(w.r)
		if err != nil {
			return
		}
		got := time.Now()
		if kind == 9 {
			// A pong is masked; the mask is zero.
			if _, err := w.Write(append([]byte{0x8a, 0x80 | byte(len(payload)), 0, 0, 0, 0}, payload...)); err != nil {
				return
			}
		}
		_, rest, found := bytes.Cut(payload, []byte(`"fields":["`))
		text, _, ended := bytes.Cut(rest, []byte(`"`))
		if at, err := strconv.ParseInt(string(text), 10, 64); err == nil && found && ended {
			r.arrivals <- arrival{time.Unix(0, at), got}
		}
	}
}

// frame reads a frame of a WebSocket (RFC 6455, 5.2).
func frame(from *bufio.Reader) (kind byte, payload []byte, err error) {
	var head [2]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return 0, nil, err
	}
	size := int(head[1])
	if size == 126 {
		var long [2]byte
		if _, err := io.ReadFull(from, long[:]); err != nil {
			return 0, nil, err
		}
		size = int(binary.BigEndian.Uint16(long[:]))
	}
	payload = make([]byte, size)
	_, err = io.ReadFull(from, payload)
	return head[0] & 15, payload, err
}

// update returns an event of the user that says when it was made.
func (r *realtimeBench) update(ctx context.Context) event.Event {
	return event.New(ctx, time.Now(), r.user, event.UserProfileUpdated{Fields: []string{strconv.FormatInt(time.Now().UnixNano(), 10)}})
}

func (r *realtimeBench) publish(ctx context.Context) error {
	id, err := uuid.NewV7()
	if err != nil {
		return fmt.Errorf("make id: %w", err)
	}
	e := r.update(ctx)
	e.ID, e.Producer = id.String(), "user-service"
	data, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	m := message.NewMessageWithContext(ctx, e.ID, data)
	m.Metadata.Set("name", e.Name)
	return r.publisher.Publish(string(event.User), m)
}

// await returns the next n arrivals.
func (r *realtimeBench) await(ctx context.Context, n int) ([]arrival, error) {
	all := make([]arrival, 0, n)
	timeout := time.After(time.Minute)
	for len(all) < n {
		select {
		case a := <-r.arrivals:
			all = append(all, a)
		case <-timeout:
			return nil, fmt.Errorf("%d of %d messages arrived", len(all), n)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return all, nil
}

// latencies measures the time from just before an event is added to the stream until each client
// has it.
func (r *realtimeBench) latencies(ctx context.Context, n int) error {
	events := 100
	if n == 1 {
		events = 1_000
	}
	var took []time.Duration
	for range events {
		if err := r.publish(ctx); err != nil {
			return err
		}
		all, err := r.await(ctx, n)
		if err != nil {
			return err
		}
		for _, a := range all {
			took = append(took, a.got.Sub(a.published))
		}
	}
	r.reportTimes(fmt.Sprintf("event on the stream to a client, WebSockets: %d", n), took)
	return nil
}

func (r *realtimeBench) reportTimes(what string, took []time.Duration) {
	slices.Sort(took)
	r.b.report.figure("realtime", what+", p50", rounded(took[len(took)/2]))
	r.b.report.figure("realtime", what+", p99", rounded(took[len(took)*99/100]))
}

// fromCommit measures the time from a commit to a client: outbox, relay, stream, gateway.
func (r *realtimeBench) fromCommit(ctx context.Context) (err error) {
	db, _, err := r.b.database(ctx, "bench_realtime", outbox.Schema())
	if err != nil {
		return err
	}
	defer db.Close()
	relay := outbox.NewRelay(db, r.publisher, r.b.epochs(db), r.b.log, prometheus.NewRegistry())
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- relay.Run(running) }()
	defer func() {
		stop()
		err = errors.Join(err, <-ended)
	}()
	box, took := outbox.New("user-service"), []time.Duration{}
	for range 500 {
		if err := pgx.BeginFunc(ctx, db, func(tx pgx.Tx) error { return box.Add(ctx, tx, r.update(ctx)) }); err != nil {
			return fmt.Errorf("commit an event: %w", err)
		}
		committed := time.Now()
		all, err := r.await(ctx, 1)
		if err != nil {
			return err
		}
		took = append(took, all[0].got.Sub(committed))
	}
	r.reportTimes("commit to a client, WebSockets: 1", took)
	return nil
}

// fanOut measures how many messages reach the clients in a second. There are fewer events in a
// row than messages may wait for a client.
func (r *realtimeBench) fanOut(ctx context.Context, n int) error {
	const burst = 40
	var rates []float64
	for range r.b.rounds {
		began := time.Now()
		for range burst {
			if err := r.publish(ctx); err != nil {
				return err
			}
		}
		if _, err := r.await(ctx, burst*n); err != nil {
			return err
		}
		rates = append(rates, float64(burst*n)/time.Since(began).Seconds())
	}
	r.b.report.figure("realtime", fmt.Sprintf("messages to clients, WebSockets: %d", n), perSecond(median(rates, func(f float64) float64 { return f })))
	return nil
}
