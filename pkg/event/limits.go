package event

import (
	"fmt"
	"strings"
)

// The bounds of an event, in bytes. Consumers index the name, the producer and the ids,
// and no event of this product is near a bound.
const (
	maxSize     = 8 << 20
	maxName     = 128
	maxProducer = 64
	maxText     = 1024
)

// checkBounds returns an error for an event that a consumer may be unable to store. It
// wraps ErrMalformed.
func (e *Event) checkBounds() error {
	notPrintable := func(c rune) bool { return c <= ' ' || c > '~' }
	if len(e.Name) > maxName {
		return fmt.Errorf("%w: name is too long", ErrMalformed)
	}
	for _, text := range [...]string{e.Producer, e.ProducerEpoch} {
		if len(text) > maxProducer || strings.ContainsFunc(text, notPrintable) {
			return fmt.Errorf("%w: producer or its epoch is too long or not printable ASCII", ErrMalformed)
		}
	}
	for _, text := range [...]string{
		e.Subject, e.Actor.Type, e.Actor.ID, string(e.Outcome), e.IP, e.UserAgent, e.RequestID, e.CorrelationID, e.CausationID, e.TraceParent,
	} {
		if len(text) > maxText || strings.IndexByte(text, 0) >= 0 {
			return fmt.Errorf("%w: a text of the envelope is longer than %d bytes or contains NUL", ErrMalformed, maxText)
		}
	}
	return nil
}
