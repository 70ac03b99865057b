package bus

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/cenkalti/backoff/v5"
)

// Metadata of a failed message, for its dead letter.
const (
	AttemptsKey = "headgate_attempts" // JSON list of Attempt
	ClassKey    = "headgate_class"    // permanent or message
)

// Attempt is one failed attempt.
type Attempt struct {
	At    time.Time `json:"at"`
	Error string    `json:"error"`
}

// attempt records a failed attempt on the message, for the dead letter that may
// follow. An unavailable dependency ends the retries at once and is left to the
// circuit breaker.
func (c *Consumer) attempt(next message.HandlerFunc) message.HandlerFunc {
	return func(m *message.Message) ([]*message.Message, error) {
		out, err := next(m)
		if err == nil {
			return out, nil
		}
		if m.Context().Err() != nil {
			return out, backoff.Permanent(fmt.Errorf("%w: %w", errStopped, err))
		}
		_, permanent := errors.AsType[*backoff.PermanentError](err)
		if !permanent && c.cfg.Unavailable(err) {
			return out, backoff.Permanent(err)
		}
		class := "message"
		if permanent {
			class = "permanent"
		}
		attempts := c.recordAttempt(m, class, err)
		result := "failed"
		if permanent || len(attempts) > maxRetries {
			result = "dead" // It is counted when the dead letter is stored.
		} else {
			c.handled.WithLabelValues(string(c.cfg.Topic), c.label(decodedOf(m).event.Name), result).Inc()
		}
		c.cfg.Log.WarnContext(m.Context(), "event handler failed", "event", decodedOf(m).event.Name, "event_id", shortID(m.UUID),
			"topic", string(c.cfg.Topic), "attempt", len(attempts), "result", result, "error", err.Error())
		return out, err
	}
}

// recordAttempt adds a failed attempt to the metadata of the message.
func (c *Consumer) recordAttempt(m *message.Message, class string, err error) []Attempt {
	attempts := append(Attempts(m), Attempt{At: time.Now().UTC(), Error: err.Error()})
	encoded, _ := json.Marshal(attempts) // Times and texts always encode.
	m.Metadata.Set(AttemptsKey, string(encoded))
	m.Metadata.Set(ClassKey, class)
	return attempts
}

// Attempts returns the failed attempts in the metadata of m.
func Attempts(m *message.Message) []Attempt {
	var attempts []Attempt
	if text := m.Metadata.Get(AttemptsKey); text != "" {
		if err := json.Unmarshal([]byte(text), &attempts); err != nil {
			return nil // A publisher may use the same key for something else.
		}
	}
	return attempts
}
