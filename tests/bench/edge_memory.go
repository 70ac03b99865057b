package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
)

// edgeMemory measures the memory of connections that were used once and stay open.
func (b *bench) edgeMemory(ctx context.Context) error {
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	gateway, err := e.startGateway(ctx, "gateway-memory")
	if err != nil {
		return err
	}
	token, err := e.token(uuid.NewString(), uuid.NewString())
	if err != nil {
		return err
	}
	var open []*wire
	defer func() {
		for _, w := range open {
			_ = w.Close() // The connection is not used again.
		}
	}()
	var first int
	for _, n := range []int{1, 100, 5_000} {
		for len(open) < n {
			w, err := connected(ctx, gateway, request(userPath, token))
			if err != nil {
				return err
			}
			open = append(open, w)
		}
		resident, err := gateway.resident()
		if err != nil {
			return err
		}
		each := ""
		if n == 1 {
			first = resident
		} else {
			each = fmt.Sprintf(", %.1f KiB for each", float64(resident-first)/float64(n-1)/(1<<10))
		}
		b.report.figure("edge-memory", fmt.Sprintf("gateway, RSS with open connections: %d%s", n, each), fmt.Sprintf("%.1f MiB", float64(resident)/(1<<20)))
	}
	return nil
}

// connected returns a connection whose first request was answered with 200. The Go runtime
// of both sides has raised the limit of open files to its maximum.
func connected(ctx context.Context, s server, text []byte) (*wire, error) {
	w, err := dial(ctx, strings.TrimPrefix(s.url, "http://"), 2*time.Minute)
	if err != nil {
		return nil, err
	}
	status, err := w.ask(text)
	if err == nil && status != http.StatusOK {
		err = fmt.Errorf("status %d, want 200", status)
	}
	if err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}
