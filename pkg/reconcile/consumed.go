package reconcile

import "slices"

// earlierLimit is how many earlier generations of a group's database are remembered.
const earlierLimit = 20

// Merge returns what w and a watermark that was read later say together. Redis may have
// been replaced by an older copy of itself, so the later one may be older. Within a
// generation the greatest numbers count, and an earlier generation says nothing.
func (w ConsumedWatermark) Merge(later ConsumedWatermark) ConsumedWatermark {
	if slices.Contains(w.Earlier, later.Generation) {
		return w
	}
	if w.Generation != later.Generation {
		earlier := append(slices.Clone(w.Earlier), w.Generation)
		later.Earlier = earlier[max(0, len(earlier)-earlierLimit):]
		return later
	}
	merged := ConsumedWatermark{
		Generation: w.Generation, Earlier: w.Earlier, HandledUntil: latest(w.HandledUntil, later.HandledUntil),
		Producers: map[string]map[string]Consumed{},
	}
	for _, part := range []ConsumedWatermark{w, later} {
		for producer, epochs := range part.Producers {
			if merged.Producers[producer] == nil {
				merged.Producers[producer] = map[string]Consumed{}
			}
			for epoch, c := range epochs {
				known := merged.Producers[producer][epoch]
				merged.Producers[producer][epoch] = Consumed{Seq: max(known.Seq, c.Seq), Seen: max(known.Seen, c.Seen)}
			}
		}
	}
	return merged
}

// covers reports whether w is of the same generation as another watermark, and not older.
func (w ConsumedWatermark) covers(other ConsumedWatermark) bool {
	return w.Generation == other.Generation && !lacks(w.Producers, other.Producers)
}

// lacks reports whether less was consumed than is known of it.
func lacks(consumed, known map[string]map[string]Consumed) bool {
	for producer, epochs := range known {
		for epoch, k := range epochs {
			if c := consumed[producer][epoch]; c.Seq < k.Seq || c.Seen < k.Seen {
				return true
			}
		}
	}
	return false
}
