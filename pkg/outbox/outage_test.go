package outbox

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestOutage is REL-49: while several topics fail at every attempt, the log has one line at
// the beginning, one a minute, and one at the end.
func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := outage{log: slog.New(slog.NewTextHandler(&log, nil))}
		away := errors.New("connection refused")
		for range 2 {
			log.Reset()
			for range 150 / 5 {
				for _, topic := range []string{"", "a", "b"} {
					o.failed(t.Context(), topic, away)
				}
				time.Sleep(5 * time.Second)
			}
			o.succeeded(t.Context(), "")
			o.succeeded(t.Context(), "b")
			o.succeeded(t.Context(), "c")
			if strings.Contains(log.String(), "resumed") {
				t.Error("resumed, although a topic still fails")
			}
			o.succeeded(t.Context(), "a")
			o.succeeded(t.Context(), "a")
			lines := strings.Split(strings.TrimSpace(log.String()), "\n")
			want := []string{"publish failed; retrying", "publish still failing; retrying", "publish still failing; retrying", "publishing resumed"}
			if len(lines) != len(want) {
				t.Fatalf("log has %d lines, want %d:\n%s", len(lines), len(want), &log)
			}
			for i := range want {
				if !strings.Contains(lines[i], want[i]) {
					t.Errorf("line %d = %s, want %s", i, lines[i], want[i])
				}
			}
			if !strings.Contains(lines[1], `topics="[a b]"`) || !strings.Contains(lines[1], "connection refused") {
				t.Errorf("line = %s, want the topics and the error", lines[1])
			}
		}
	})
}
