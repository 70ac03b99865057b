package reconcile

import "github.com/headgate/headgate/pkg/bus"

// basis is what proves that events are lost and not late: a watermark, and the end
// that the stream had after the watermark was read. Once the group has acknowledged
// everything up to that end, a number up to the watermark without a record is lost.
// No clock takes part.
type basis struct {
	watermark Watermark
	mark      bus.Mark
}

// bases are by producer. While a group works off a backlog it never reaches the end
// of the stream, but it does reach an earlier end, so that one is kept.
type bases map[string]basis

// proven returns the newest watermark of the producer whose events are lost if they
// have no record. w was read before position.
func (b bases) proven(w Watermark, position bus.Position) (Watermark, bool) {
	latest := basis{w, position.End}
	if position.Covers(position.End) {
		b[w.Producer] = latest
		return w, true
	}
	kept, ok := b[w.Producer]
	if !ok || position.End.Before(kept.mark) { // The stream was emptied or is an older copy.
		b[w.Producer] = latest
		return Watermark{}, false
	}
	if !position.Covers(kept.mark) {
		return Watermark{}, false
	}
	b[w.Producer] = latest
	return kept.watermark, true
}
