package bus

import "context"

// Trim does one round of trimming.
func (s *Subscriber) Trim(ctx context.Context, topic string) error {
	return newSubscription(s, topic).trim(ctx)
}
