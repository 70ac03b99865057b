package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
)

const forgedRate = 1_000

// edgeForged measures requests with valid tokens while the gateway has to verify forged ones
// as well.
func (b *bench) edgeForged(ctx context.Context) error {
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	gateway, err := e.startGateway(ctx, "gateway-forged")
	if err != nil {
		return err
	}
	good := edgeLine{"good", gateway, loadOptions{path: userPath, tokens: e.few, connections: 16, lasts: edgeShort}}
	if err := e.warm(ctx, []edgeLine{good}); err != nil {
		return err
	}
	saturate := func(ctx context.Context) (float64, error) {
		c, err := e.saturate(ctx, good)
		return c.rate, err
	}
	var refused []float64
	medians, err := b.alternate(ctx, variant{"alone", saturate}, variant{"beside", func(ctx context.Context) (float64, error) {
		forged := loadOptions{path: userPath, tokens: e.few, connections: 16, lasts: edgeShort + 250*time.Millisecond, rate: forgedRate, forged: 1}
		var r loadResult
		ended := make(chan error, 1)
		go func() {
			var err error
			if r, err = e.load(ctx, gateway, forged); err == nil {
				err = r.only(http.StatusUnauthorized)
			}
			ended <- err
		}()
		rate, err := saturate(ctx)
		err = errors.Join(err, <-ended)
		refused = append(refused, float64(r.Requests)/r.Seconds)
		return rate, err
	}})
	if err != nil {
		return err
	}
	b.report.figure("edge-forged", "gateway, good tokens alone, 16 connections", perSecond(medians["alone"]))
	b.report.atLeast("edge-forged", fmt.Sprintf("beside %d forged ones a second / that", forgedRate), perSecond(medians["beside"]), medians["beside"]/medians["alone"], 0.75)
	b.report.figure("edge-forged", "forged ones that were refused meanwhile", perSecond(median(refused, func(f float64) float64 { return f })))
	return nil
}

// edgeRevoke measures how long a token stays valid after the event that ends its session.
func (b *bench) edgeRevoke(ctx context.Context) error {
	const samples, goal = 50, time.Second
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	gateway, err := e.startGateway(ctx, "gateway-revoke")
	if err != nil {
		return err
	}
	w, err := dial(ctx, strings.TrimPrefix(gateway.url, "http://"), 2*time.Minute)
	if err != nil {
		return err
	}
	defer w.Close()
	var took []time.Duration
	for range samples {
		one, err := e.revoke(ctx, w)
		if err != nil {
			return err
		}
		took = append(took, one)
	}
	slices.Sort(took)
	p50, p99 := took[len(took)/2], took[len(took)*99/100]
	b.report.figure("edge-revoke", "session revoked on the stream to 401, p50", rounded(p50))
	b.report.within("edge-revoke", "session revoked on the stream to 401, p99", p99, goal)
	return nil
}

// revoke sends requests with a session's token, one after the other. It returns the time from
// just before the event is added to the stream until a request is rejected.
func (e *edge) revoke(ctx context.Context, w *wire) (time.Duration, error) {
	const used = 20 // often enough for the token to be cached
	user, session := uuid.NewString(), uuid.NewString()
	token, err := e.token(user, session)
	if err != nil {
		return 0, err
	}
	revoked, err := revocation(ctx, user, session)
	if err != nil {
		return 0, err
	}
	text := request(userPath, token)
	for range used {
		if status, err := w.ask(text); err != nil || status != http.StatusOK {
			return 0, errors.Join(err, fmt.Errorf("before the event: %d", status))
		}
	}
	signer, err := e.b.signer("auth-service")
	if err != nil {
		return 0, err
	}
	added := make(chan error, 1)
	began := time.Now()
	go func() { added <- bus.NewSigningPublisher(e.b.redis, signer).Publish(string(event.User), revoked) }()
	for {
		status, err := w.ask(text)
		took := time.Since(began)
		switch {
		case err != nil:
			return 0, errors.Join(err, <-added)
		case status == http.StatusUnauthorized:
			return took, <-added
		case status != http.StatusOK || took > time.Minute:
			return 0, errors.Join(fmt.Errorf("%d, %s after the event", status, took), <-added)
		}
	}
}

// revocation returns the event as the relay of auth-service publishes it.
func revocation(ctx context.Context, user, session string) (*message.Message, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return nil, fmt.Errorf("make id: %w", err)
	}
	e := event.New(ctx, time.Now(), user, event.SessionRevoked{SessionID: session, Reason: "bench"})
	e.ID, e.Producer = id.String(), "auth-service"
	data, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode event: %w", err)
	}
	m := message.NewMessageWithContext(ctx, e.ID, data)
	m.Metadata.Set("name", e.Name)
	return m, nil
}
