package realtime_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

func FuzzParsePosition(f *testing.F) {
	for _, seed := range []string{"", "00000000000000aa.1-0.2-3", "00000000000000aa.1-0", "00000000000000AA.1-0.2-0", "x.-1-0.2-0", "00000000000000aa.01-0.2-0", "00000000000000aa.9223372036854775807-9223372036854775807.0-0", "00000000000000aa.1-0.2-0\n"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := realtime.ParsePosition(text)
		if err == nil && p.String() != text {
			t.Errorf("%q reads as %q", text, p)
		}
	})
}

func FuzzParseChannels(f *testing.F) {
	for _, seed := range []string{"", "audit", "audit,streams,audit", ",", "audit,", "AUDIT"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		found, err := realtime.ParseChannels(text)
		if err != nil {
			return
		}
		for _, c := range found {
			if !slices.Contains(realtime.Channels(), c) || !strings.Contains(text, string(c)) {
				t.Errorf("%q has the channel %q", text, c)
			}
		}
	})
}
