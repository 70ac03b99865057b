package service_test

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/headgate/headgate/pkg/service"
)

// TestOutage is REL-75: while several parts fail at every attempt, the log has one line at
// the beginning, one a minute, and one at the end.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		away := errors.New("connection refused")
		reported := errors.New("logged elsewhere")
		o := service.NewOutage(service.OutageConfig{
			Log: slog.New(slog.NewTextHandler(&log, nil)), Failing: "publish failed; retrying", Over: "publishing resumed", Parts: "topics",
			Reported: func(err error) bool { return errors.Is(err, reported) },
		})
		o.Record(t.Context(), "a", reported)
		if log.Len() > 0 || o.Lasts() != 0 {
			t.Errorf("an error that is logged elsewhere began an outage:\n%s", &log)
		}
		for range 2 {
			log.Reset()
			for range 150 / 5 {
				for _, part := range []string{"", "a", "b"} {
					o.Record(t.Context(), part, away)
				}
				time.Sleep(5 * time.Second)
			}
			if o.Lasts() != 150*time.Second || !errors.Is(o.Fault("b"), away) || o.Fault("c") != nil {
				t.Errorf("lasts %s, fault of b %v, fault of c %v", o.Lasts(), o.Fault("b"), o.Fault("c"))
			}
			for _, part := range []string{"", "b", "c"} {
				o.Record(t.Context(), part, nil)
			}
			if strings.Contains(log.String(), "resumed") {
				t.Error("resumed, although a part still fails")
			}
			o.Record(t.Context(), "a", nil)
			o.Record(t.Context(), "a", nil)
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			want := []string{"publish failed", "failing_ms=60000", "failing_ms=120000", `"publishing resumed" failed_ms=150000`}
			if len(lines) != len(want) {
				t.Fatalf("log has %d lines, want %d:\n%s", len(lines), len(want), &log)
			}
			for i := range want {
				if !strings.Contains(lines[i], want[i]) {
					t.Errorf("line %d = %s, want %s", i, lines[i], want[i])
				}
			}
			if !strings.Contains(lines[1], `topics="[a b]"`) || !strings.Contains(lines[1], "connection refused") {
				t.Errorf("line = %s, want the parts and the error", lines[1])
			}
			if o.Lasts() != 0 {
				t.Errorf("the outage lasts %s after its end", o.Lasts())
			}
		}
	})
}

// TestOutageQuiet: an attempt that succeeds right after one has failed does not end the
// outage.
func TestOutageQuiet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := service.NewOutage(service.OutageConfig{
			Log: slog.New(slog.NewTextHandler(&log, nil)), Failing: "away", Over: "back", Quiet: time.Second,
		})
		for range 10 {
			o.Record(t.Context(), "", errors.New("refused"))
			time.Sleep(time.Second / 2)
			o.Record(t.Context(), "", nil)
		}
		if strings.Count(log.String(), "level=") != 1 {
			t.Errorf("log = %s, want one line", &log)
		}
		time.Sleep(time.Second / 2)
		o.Record(t.Context(), "", nil)
		if !strings.Contains(log.String(), "msg=back failed_ms=4500") {
			t.Errorf("log = %s, want the end", &log)
		}
	})
}
