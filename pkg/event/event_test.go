package event_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

func TestParseRefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	const good = `{"id":"01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d","name":"user.signed_up.v1","occurredAt":"2026-11-01T12:00:00Z","producer":"auth-service","data":{}}`
	if _, err := event.Parse([]byte(good)); err != nil {
		t.Fatalf("Parse(good) = %v", err)
	}
	for name, change := range map[string][2]string{
		"not JSON":         {good, "junk"},
		"a list":           {good, "[]"},
		"no id":            {`"id":"01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d",`, ""},
		"id is no UUID":    {"01926f3a-7c2e", "01926f3a7c2e"},
		"no version":       {"user.signed_up.v1", "user.signed_up"},
		"version nought":   {"user.signed_up.v1", "user.signed_up.v0"},
		"name with spaces": {"user.signed_up.v1", "user signed up.v1"},
		"no time":          {`"occurredAt":"2026-11-01T12:00:00Z",`, ""},
		"no producer":      {`"producer":"auth-service",`, ""},
		"no data":          {`,"data":{}`, ""},
		"data is a text":   {`"data":{}`, `"data":"x"`},

		"long name":                {"user.signed_up.v1", "user." + strings.Repeat("x", 200) + ".v1"},
		"long producer":            {"auth-service", strings.Repeat("x", 65)},
		"producer with NUL":        {"auth-service", `a\u0000b`},
		"producer with a space":    {"auth-service", "auth service"},
		"long epoch":               {`"data":{}`, `"data":{},"producerEpoch":"` + strings.Repeat("x", 65) + `"`},
		"epoch with NUL":           {`"data":{}`, `"data":{},"producerEpoch":"a\u0000b"`},
		"long subject":             {`"data":{}`, `"data":{},"subject":"` + strings.Repeat("x", 1025) + `"`},
		"subject with NUL":         {`"data":{}`, `"data":{},"subject":"a\u0000"`},
		"long request id":          {`"data":{}`, `"data":{},"requestId":"` + strings.Repeat("x", 1025) + `"`},
		"actor with NUL":           {`"data":{}`, `"data":{},"actor":{"type":"user","id":"\u0000"}`},
		"sequence number too high": {`"data":{}`, `"data":{},"producerSeq":9223372036854775808`},
		"the year 10000 in UTC":    {"2026-11-01T12:00:00Z", "9999-12-31T23:59:59-23:59"},
		"the year 0":               {"2026-11-01T12:00:00Z", "0000-01-01T00:00:00Z"},
		"data of 9 MiB":            {`"data":{}`, `"data":{"a":"` + strings.Repeat("x", 9<<20) + `"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bad := strings.Replace(good, change[0], change[1], 1)
			if _, err := event.Parse([]byte(bad)); !errors.Is(err, event.ErrMalformed) {
				t.Errorf("Parse(%.300s) = %v, want ErrMalformed", bad, err)
			}
		})
	}
}

func TestNewTakesTheOriginAndNamesTheOutcome(t *testing.T) {
	t.Parallel()
	ctx := event.WithOrigin(t.Context(), event.Origin{Actor: event.Actor{Type: "anonymous"}, IP: "192.0.2.1", RequestID: "r-1"})
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.FixedZone("", 3600))

	e := event.New(ctx, at, "", event.UserLoginFailed{Reason: "invalid_credentials"})
	if e.Outcome != event.Failure || e.IP != "192.0.2.1" || e.RequestID != "r-1" || e.Actor.Type != "anonymous" {
		t.Errorf("event = %+v", e)
	}
	if !e.OccurredAt.Equal(at) || e.OccurredAt.Location() != time.UTC {
		t.Errorf("occurredAt = %v, want %v in UTC", e.OccurredAt, at)
	}
	if e.Type() != "user.login_failed" || e.Version() != 1 {
		t.Errorf("type, version = %q, %d", e.Type(), e.Version())
	}
	if got := event.New(ctx, at, "", event.UserSignedUp{}); got.Outcome != event.Success {
		t.Errorf("outcome = %q, want success", got.Outcome)
	}
}

func TestDecodeRefusesAnotherName(t *testing.T) {
	t.Parallel()
	e := event.New(t.Context(), time.Now(), "s", event.UserLoggedOut{SessionID: "x"})
	if _, err := event.Decode[event.UserLoggedIn](e); !errors.Is(err, event.ErrMalformed) {
		t.Errorf("Decode = %v, want ErrMalformed", err)
	}
	p, err := event.Decode[event.UserLoggedOut](e)
	if err != nil || p.SessionID != "x" {
		t.Errorf("Decode = %+v, %v", p, err)
	}
}

const oldSeal, newSeal = "0123456789abcdefghijklmnopqrstuv", "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"

func sealer(t *testing.T, keys service.Keys) *event.Sealer {
	t.Helper()
	s, err := event.NewSealer(keys.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A rotation in three steps: each process opens what the others seal, and nothing that was
// sealed with a listed key becomes unreadable. What the only key sealed before there were
// lists names no key.
func TestSEC125SealingKeysRotate(t *testing.T) {
	t.Parallel()
	before, named := service.Key{ID: service.DefaultKey, Secret: oldSeal}, service.Key{ID: "b", Secret: newSeal}
	single, accepted := sealer(t, service.Keys{before}), sealer(t, service.Keys{before, named})
	first, after := sealer(t, service.Keys{named, before}), sealer(t, service.Keys{named})
	for name, tc := range map[string]struct {
		by, to *event.Sealer
		prefix string
		ok     bool
	}{
		"the only key":               {single, single, "s1.", true},
		"the next one is listed":     {accepted, single, "s1.", true},
		"listed first":               {first, accepted, "s2.b.", true},
		"the previous one is listed": {single, first, "s1.", true},
		"the previous one is gone":   {first, after, "s2.b.", true},
		"sealed before":              {single, after, "s1.", false},
		"not listed yet":             {first, single, "s2.b.", false},
	} {
		sealed := tc.by.Seal("a link", "context")
		plain, err := tc.to.Open(sealed, "context")
		if !strings.HasPrefix(string(sealed), tc.prefix) || tc.ok && (err != nil || plain != "a link") || !tc.ok && !errors.Is(err, event.ErrSeal) {
			t.Errorf("%s: %s… opens as %q, %v", name, sealed[:5], plain, err)
		}
	}
	renamed := "s1." + strings.TrimPrefix(string(first.Seal("a link", "context")), "s2.b.")
	if _, err := first.Open(event.Sealed(renamed), "context"); !errors.Is(err, event.ErrSeal) {
		t.Errorf("a value under another key's name opens: %v", err)
	}
}

func TestSealer(t *testing.T) {
	t.Parallel()
	mine := sealer(t, service.PlainKey(oldSeal))
	other := sealer(t, service.PlainKey(newSeal))
	sealed := mine.Seal("secret", "context")
	if strings.Contains(string(sealed), "secret") || sealed == mine.Seal("secret", "context") {
		t.Errorf("Seal gave %q: readable, or the same twice", sealed)
	}
	if plain, err := mine.Open(sealed, "context"); err != nil || plain != "secret" {
		t.Errorf("Open = %q, %v", plain, err)
	}
	changed := event.Sealed(string(sealed[:len(sealed)-2]) + "AA")
	for name, open := range map[string]func() (string, error){
		"another key":     func() (string, error) { return other.Open(sealed, "context") },
		"another context": func() (string, error) { return mine.Open(sealed, "elsewhere") },
		"changed":         func() (string, error) { return mine.Open(changed, "context") },
		"not sealed":      func() (string, error) { return mine.Open("plain", "context") },
		"empty":           func() (string, error) { return mine.Open("", "context") },
	} {
		if plain, err := open(); !errors.Is(err, event.ErrSeal) || plain != "" {
			t.Errorf("%s: Open = %q, %v, want ErrSeal", name, plain, err)
		}
	}
	if _, err := event.NewSealer(service.PlainKey("short").Reveal()); err == nil {
		t.Error("NewSealer took a short secret")
	}
}

func TestMaskHidesSealedValuesAtAnyDepth(t *testing.T) {
	t.Parallel()
	sealed := sealer(t, service.PlainKey(oldSeal)).Seal("x", "")
	named := sealer(t, service.Keys{{ID: "b", Secret: newSeal}}).Seal("x", "")
	text, err := json.Marshal(event.Mask(map[string]any{"a": string(sealed), "b": []any{map[string]any{"c": string(named)}}, "d": 1.0}))
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"a":"[sealed]","b":[{"c":"[sealed]"}],"d":1}`; string(text) != want {
		t.Errorf("Mask = %s, want %s", text, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"id":"01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d","name":"user.signed_up.v1","occurredAt":"2026-11-01T12:00:00Z","producer":"auth-service","data":{}}`))
	f.Add([]byte(`{"data":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := event.Parse(data)
		if err != nil {
			if !errors.Is(err, event.ErrMalformed) {
				t.Fatalf("Parse = %v, want ErrMalformed", err)
			}
			return
		}
		again, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("Marshal: %v", err)
		}
		if _, err := event.Parse(again); err != nil {
			t.Fatalf("Parse of what Parse took: %v", err)
		}
	})
}

// TestSEC117At is SEC-117: the time of an event is at most a minute after that of the clock
// that reads it.
func TestSEC117At(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for ahead, want := range map[time.Duration]time.Duration{
		-time.Hour: -time.Hour, 0: 0, time.Second: time.Second, time.Minute: time.Minute, time.Hour: time.Minute, 100 * 365 * 24 * time.Hour: time.Minute,
	} {
		if got := (event.Event{OccurredAt: now.Add(ahead)}).At(now); !got.Equal(now.Add(want)) {
			t.Errorf("%s ahead: %s, want %s ahead", ahead, got, want)
		}
	}
}
