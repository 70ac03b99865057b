package bus

import "context"

// slots is a semaphore with one token for each message that may still be taken.
type slots chan struct{}

func newSlots(n int) slots {
	s := make(slots, n)
	s.release(n)
	return s
}

// reserve takes at least one slot, and others that are free, at most limit of
// them. It returns 0 when ctx has ended.
func (s slots) reserve(ctx context.Context, limit int) int {
	select {
	case <-ctx.Done():
		return 0
	case <-s:
	}
	for n := 1; n < limit; n++ {
		select {
		case <-s:
		default:
			return n
		}
	}
	return limit
}

func (s slots) release(n int) {
	for range n {
		s <- struct{}{}
	}
}
