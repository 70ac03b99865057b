package bus

import "github.com/ThreeDotsLabs/watermill/message"

// countedDeadLetters counts the messages whose dead letters were stored. The others are
// redelivered, so they are not dead yet.
type countedDeadLetters struct {
	message.Publisher

	consumer *Consumer
}

// Publish implements message.Publisher.
func (d countedDeadLetters) Publish(topic string, messages ...*message.Message) error {
	err := d.Publisher.Publish(topic, messages...)
	for _, m := range messages {
		result := "dead"
		if err != nil {
			result = "failed"
			d.consumer.cfg.Log.ErrorContext(originOf(m), "dead letter could not be stored; the message will be redelivered",
				"topic", string(d.consumer.cfg.Topic), "message", shortID(m.UUID), "error", err.Error())
		}
		d.consumer.handled.WithLabelValues(string(d.consumer.cfg.Topic), d.consumer.label(decodedOf(m).event.Name), result).Inc()
	}
	return err
}

// shortID returns the beginning of an id that a stranger may have chosen.
func shortID(id string) string {
	const limit = 64
	return id[:min(len(id), limit)]
}
