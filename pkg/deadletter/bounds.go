package deadletter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/bus"
)

// The bounds of what a dead letter keeps, in bytes unless they count something. No
// event of an outbox is near them; only what a stranger publishes is cut.
const (
	keyLimit      = 255 // an index entry of Postgres has at most 2,704 bytes
	reasonLimit   = 2 << 10
	attemptsLimit = 20 // of one delivery: the first and the last ones
	errorLimit    = 8 << 10
	payloadLimit  = 8 << 20  // a longer one is no event
	payloadStart  = 64 << 10 // what is kept of a payload that is too long
	metadataKeys  = 64
	metadataValue = 4 << 10
)

// key returns s if it can be in an index, and else the beginning of s with the hash of
// all of it: different texts have different keys.
func key(s string) string {
	if len(s) <= keyLimit && text(s) == s {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return cut(s, keyLimit/2) + " sha256:" + hex.EncodeToString(sum[:])
}

// cut returns the first limit bytes of s as text for Postgres, with a mark if there is
// more.
func cut(s string, limit int) string {
	clean := text(s[:min(len(s), limit)])
	if len(s) <= limit && len(clean) <= limit { // A replaced byte is longer than before.
		return clean
	}
	return strings.ToValidUTF8(clean[:min(len(clean), limit)], "") + "…"
}

func boundAttempts(attempts []bus.Attempt) []bus.Attempt {
	if extra := len(attempts) - attemptsLimit; extra > 0 {
		attempts = slices.Concat(attempts[:1], attempts[1+extra:])
	}
	bound := make([]bus.Attempt, len(attempts))
	for i, a := range attempts {
		bound[i] = bus.Attempt{At: boundTime(a.At), Error: cut(a.Error, errorLimit)}
	}
	return bound
}

// boundTime returns a time that JSON can encode in every time zone.
func boundTime(t time.Time) time.Time {
	if year := t.Year(); year < 1 || year > 9998 {
		return time.Time{}
	}
	return t.UTC()
}

func boundPayload(payload []byte) []byte {
	switch {
	case payload == nil:
		return []byte{}
	case len(payload) > payloadLimit:
		return payload[:payloadStart]
	}
	return payload
}

func boundMetadata(metadata map[string]string) map[string]string {
	bound := make(map[string]string, min(len(metadata), metadataKeys+1))
	for i, name := range slices.Sorted(maps.Keys(metadata)) {
		if i == metadataKeys {
			bound["headgate_left_out"] = fmt.Sprintf("%d more keys", len(metadata)-metadataKeys)
			break
		}
		bound[key(name)] = cut(metadata[name], metadataValue)
	}
	return bound
}

// encode returns JSON without NUL characters, which Postgres's jsonb rejects.
func encode(v any) []byte {
	data, _ := json.Marshal(v) // Maps and lists of strings and times always encode.
	return bytes.ReplaceAll(data, []byte(`\u0000`), []byte(`\ufffd`))
}

// text replaces what a text column rejects: NUL and invalid UTF-8.
func text(s string) string {
	return strings.ToValidUTF8(strings.ReplaceAll(s, "\x00", "\uFFFD"), "\uFFFD")
}
