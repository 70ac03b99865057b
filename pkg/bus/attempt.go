package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
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

const (
	maxRetries   = 2 // that is three attempts
	firstRetry   = time.Second
	longestDelay = 30 * time.Second // between two tries of a delayed message
)

// errDelayed says that a message stays pending, because the wait list is full.
var errDelayed = errors.New("event delayed: wait list is full")

// failureClass is why an attempt failed.
type failureClass int

const (
	classPermanent failureClass = iota // no retry can succeed
	classMessage                       // any other error of the message
	classDelayed                       // the message has to wait, though the dependencies are available
	classGroup                         // as classDelayed, but it is not known to be the one that waited for a lock
	classOutage                        // a dependency is unavailable
	classStopped                       // the message's context has ended
)

// retry makes the attempts at a message. It returns when the message was handled or
// has failed for good, or when stop ends.
//
//nolint:contextcheck // The message has a context of its own, as all of Watermill's have.
func (c *Consumer) retry(stop context.Context) message.HandlerMiddleware {
	return func(next message.HandlerFunc) message.HandlerFunc {
		return func(m *message.Message) ([]*message.Message, error) {
			r := retries{Consumer: c, message: m, place: slotOf(m.Context()), delay: firstRetry}
			defer r.end()
			for c.breaker.pass(stop) {
				out, err := next(m)
				if err == nil {
					return out, nil
				}
				class := c.classify(m, err)
				if err := r.failed(class, err); err != nil {
					return nil, err
				}
				if class == classOutage {
					continue
				}
				if err := r.rest(stop, class); err != nil {
					return nil, err
				}
			}
			return nil, errStopped
		}
	}
}

// retries decides what follows a failed attempt at a message. While the message waits for
// the next one, others have its slot in the window.
//
// A delayed message is tried again for IsolatedFailureTimeout, then it has failed.
// The timeout is long, because somebody must release the row that the message waits
// for, or because a probe that succeeds proves little: it may not need what the
// message needs. A delayed message of the stream for which the wait list
// has no room gets a negative acknowledgement. It stays pending, and its timeout begins
// again when it is redelivered. Messages from other sources wait, because their sources
// deliver them again at once.
type retries struct {
	*Consumer
	message *message.Message
	place   *slot
	delay   time.Duration // before the next attempt
	since   time.Time     // the message has been delayed since then
	delayed bool          // at least once
}

// end says that the message is not delayed any more.
func (r *retries) end() {
	if r.delayed {
		r.delays.Record(originOf(r.message), r.message.UUID, nil)
	}
}

// failed returns the message's error if no attempt is to follow.
func (r *retries) failed(class failureClass, err error) error {
	switch class {
	case classStopped:
		return fmt.Errorf("%w: %w", errStopped, err)
	case classPermanent:
		return r.dead("permanent", err)
	case classOutage:
		r.since, r.delay = time.Time{}, firstRetry
	case classMessage:
		if r.recordAttempt(r.message, "message", err) > maxRetries {
			r.logFailed(r.message, "dead", err)
			return err
		}
		r.logFailed(r.message, "failed", err)
	case classDelayed, classGroup:
		if r.since.IsZero() {
			r.since, r.delayed = time.Now(), true
		}
		r.delays.Record(originOf(r.message), r.message.UUID, fmt.Errorf("event %s (%s): %w", shortID(r.message.UUID), decodedOf(r.message).event.Name, err))
		if time.Since(r.since) > r.cfg.IsolatedFailureTimeout {
			return r.dead("message", err)
		}
	}
	return nil
}

// dead records the last attempt and returns its error.
func (r *retries) dead(class string, err error) error {
	r.recordAttempt(r.message, class, err)
	if r.message.Metadata.Get(RefusedKey) == "" { // Refusals are logged once a minute.
		r.logFailed(r.message, "dead", err)
	}
	return err
}

// rest waits until the message may have its next attempt. It returns an error if stop
// ended or if the message has to leave.
func (r *retries) rest(stop context.Context, class failureClass) error {
	leave := (class == classDelayed || class == classGroup) && r.place.mustLeave()
	if !r.place.rest(stop, jittered(r.delay), class) {
		return errStopped
	}
	if leave {
		r.place.leave()
		return errDelayed
	}
	r.delay = min(2*r.delay, longestDelay)
	return nil
}

// classify says why an attempt failed. If a dependency may be unavailable, its probe
// decides.
func (c *Consumer) classify(m *message.Message, err error) failureClass {
	if m.Context().Err() != nil {
		return classStopped
	}
	if _, ok := errors.AsType[*backoff.PermanentError](err); ok {
		return classPermanent
	}
	if c.cfg.Contended(err) {
		c.count(m, "delayed")
		if errors.Is(err, errNotWritten) {
			return classGroup
		}
		return classDelayed
	}
	if !c.cfg.Unavailable(err) {
		return classMessage
	}
	opened, fault := c.breaker.fail(context.WithoutCancel(m.Context()))
	if fault == nil {
		c.count(m, "delayed")
		return classDelayed
	}
	c.count(m, "paused")
	if opened {
		c.cfg.Log.WarnContext(originOf(m), "circuit breaker opened", append(c.attributes(m), "error", err.Error(), "probe", fault.Error())...)
	}
	return classOutage
}

// recordAttempt adds a failed attempt to the metadata of the message. It returns how
// many the message has had.
func (c *Consumer) recordAttempt(m *message.Message, class string, err error) int {
	attempts := append(Attempts(m), Attempt{At: time.Now().UTC(), Error: err.Error()})
	encoded, _ := json.Marshal(attempts) // Times and texts always encode.
	m.Metadata.Set(AttemptsKey, string(encoded))
	m.Metadata.Set(ClassKey, class)
	return len(attempts)
}

// logFailed counts and logs the last recorded attempt. A dead message is counted when
// its dead letter is stored.
func (c *Consumer) logFailed(m *message.Message, result string, err error) {
	if result != "dead" {
		c.count(m, result)
	}
	c.cfg.Log.WarnContext(originOf(m), "event handler failed",
		append(c.attributes(m), "attempt", len(Attempts(m)), "result", result, "error", err.Error())...)
}

// originOf returns the context for log lines about a message: they have the request id
// of its event.
func originOf(m *message.Message) context.Context { return withCause(m.Context(), decodedOf(m).event) }

// attributes returns what a log line says about a message.
func (c *Consumer) attributes(m *message.Message) []any {
	return []any{"event", decodedOf(m).event.Name, "event_id", shortID(m.UUID), "topic", string(c.cfg.Topic)}
}

// count counts an attempt in headgate_events_total.
func (c *Consumer) count(m *message.Message, result string) {
	c.handled.WithLabelValues(string(c.cfg.Topic), c.label(decodedOf(m).event.Name), result).Inc()
}

// jittered changes a delay by up to a tenth, so that messages that failed together
// do not return together.
func jittered(delay time.Duration) time.Duration {
	//nolint:gosec // Jitter is not a secret.
	return delay - delay/10 + rand.N(delay/5)
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
