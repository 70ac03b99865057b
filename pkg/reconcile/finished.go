package reconcile

import "reflect"

// finished are closed epochs of which nothing is missing and every hour matches, by their
// watermarks at that time. They are compared again only when the producer says something
// else of them, so the cost of a round does not grow with the number of restores.
type finished map[numbers]EpochWatermark

// rest returns the epochs of a watermark that are to be compared; the current one is the
// last.
func (f finished) rest(w Watermark) []EpochWatermark {
	var rest []EpochWatermark
	for _, e := range w.Closed {
		if before, ok := f[numbers{w.Topic, w.Producer, e.Epoch}]; !ok || !reflect.DeepEqual(before, e) {
			rest = append(rest, e)
		}
	}
	return append(rest, w.EpochWatermark)
}

// add adds the closed epochs of a watermark that have a complete comparison.
func (f finished) add(w Watermark, complete map[string]bool) {
	for _, e := range w.Closed {
		if complete[e.Epoch] {
			f[numbers{w.Topic, w.Producer, e.Epoch}] = e
		}
	}
}
