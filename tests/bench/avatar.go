package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// avatar measures uploads of avatars through the gateway, and the peak memory of user-service
// meanwhile.
func (b *bench) avatar(ctx context.Context) error {
	auth, err := b.startService(ctx, "auth-service", "bench_auth", "PUBLIC_BASE_URL=http://localhost")
	if err != nil {
		return err
	}
	running := processes{auth}
	defer func() { running.stop() }()
	// As in docker-compose.yml, where the container has 512 MiB.
	user, err := b.startService(ctx, "user-service", "bench_user", "JWKS_URL="+auth.url+"/.well-known/jwks.json", "GOMEMLIMIT=450MiB")
	if err != nil {
		return err
	}
	running = append(running, user)
	gateway, err := b.startService(ctx, "gateway", "bench_gateway", "JWKS_URL="+auth.url+"/.well-known/jwks.json", "AUTH_URL="+auth.url,
		"USER_URL="+user.url, "EMAIL_URL="+auth.url, "AUDIT_URL="+auth.url, "AVATAR_RATE_LIMIT=off", "GENERAL_RATE_LIMIT=off", "GENERAL_IP_RATE_LIMIT=off")
	if err != nil {
		return err
	}
	running = append(running, gateway)
	c := newClient(auth.url, gateway.url)
	const clients = 8
	accounts, err := c.accounts(ctx, clients)
	if err != nil {
		return err
	}
	for _, size := range []image.Point{{512, 512}, {1200, 900}, {4032, 3024}} {
		if err := b.uploads(ctx, c, user.pid, accounts, size); err != nil {
			return err
		}
	}
	return nil
}

// uploads measures uploads of two photographs in turn, so each is a change.
func (b *bench) uploads(ctx context.Context, c *client, pid int, accounts []*account, size image.Point) error {
	photos := [][]byte{photograph(size, 0), photograph(size, 99)}
	var n atomic.Int64
	var peaks []int
	medians, err := b.alternate(ctx, variant{"uploads", func(ctx context.Context) (float64, error) {
		if err := resetPeak(pid); err != nil {
			return 0, err
		}
		figure, err := rate(ctx, accounts, func(ctx context.Context, a *account) error {
			return c.upload(ctx, a, photos[n.Add(1)%2])
		})
		if err != nil {
			return 0, err
		}
		highest, err := peak(pid)
		peaks = append(peaks, highest)
		return figure, err
	}})
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d × %d, %d KiB, %d clients", size.X, size.Y, len(photos[0])>>10, len(accounts))
	b.report.figure("avatar", "uploads of "+what, fmt.Sprintf("%.1f/s", medians["uploads"]))
	highest := 0
	for _, one := range peaks {
		highest = max(highest, one)
	}
	b.report.figure("avatar", "peak RSS of user-service meanwhile", fmt.Sprintf("%d MiB", highest>>20))
	return nil
}

// photograph returns a JPEG with some detail everywhere.
func photograph(size image.Point, seed int) []byte {
	m := image.NewNRGBA(image.Rectangle{Max: size})
	for y := range size.Y {
		for x := range size.X {
			m.SetNRGBA(x, y, color.NRGBA{uint8(x * 255 / size.X), uint8(y * 255 / size.Y), uint8(x*x/97 + y*y/89 + seed), 255})
		}
	}
	var data bytes.Buffer
	_ = jpeg.Encode(&data, m, &jpeg.Options{Quality: 75}) // It writes to memory.
	return data.Bytes()
}

// upload sends an avatar. Like a good client, it retries as long as the service is busy.
func (c *client) upload(ctx context.Context, a *account, photo []byte) error {
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.user+"/api/v1/user/me/avatar", bytes.NewReader(photo))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", "image/jpeg")
		req.Header.Set("Authorization", "Bearer "+a.access)
		if err = c.send(req, nil); err == nil || !strings.Contains(err.Error(), "avatar_busy") {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// resetPeak lets peak begin anew (proc(5), clear_refs).
func resetPeak(pid int) error {
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0o600); err != nil {
		return fmt.Errorf("reset the peak of memory: %w", err)
	}
	return nil
}

var errNoPeak = errors.New("inspect process: no VmHWM")

// peak returns the highest resident memory of a process since resetPeak, in bytes.
func peak(pid int) (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("inspect process: %w", err)
	}
	_, rest, ok := strings.Cut(string(data), "VmHWM:")
	fields := strings.Fields(rest)
	if !ok || len(fields) == 0 {
		return 0, errNoPeak
	}
	kibibytes, err := strconv.Atoi(fields[0])
	return kibibytes << 10, err
}
