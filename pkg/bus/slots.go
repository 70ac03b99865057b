package bus

import "context"

// slots is a semaphore with one token for each message that may still be delivered.
type slots chan struct{}

func newSlots(n int) slots {
	s := make(slots, n)
	s.release(n)
	return s
}

// reserve waits for a free slot and takes all free ones, at most limit. It returns
// how many it took, 0 if ctx ended first.
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
