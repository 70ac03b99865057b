package bus

import (
	"context"
	"errors"
	"fmt"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
)

// Publisher adds messages to streams, all messages of a call in one pipeline.
// It is safe for concurrent use and leaves the client open.
type Publisher struct {
	client     redis.UniversalClient
	marshaller redisstream.Marshaller
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher on client.
func NewPublisher(client redis.UniversalClient) *Publisher {
	return &Publisher{client: client, marshaller: redisstream.DefaultMarshallerUnmarshaller{}}
}

// Publish implements message.Publisher. It returns nil only after Redis has
// taken every message. After an error some of them may have been taken, so a
// repeat can make duplicates; consumers know them by their UUID.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	pipe := p.client.Pipeline()
	for _, m := range messages {
		values, err := p.marshaller.Marshal(topic, m)
		if err != nil {
			return fmt.Errorf("encode message %s: %w", m.UUID, err)
		}
		pipe.XAdd(context.Background(), &redis.XAddArgs{Stream: topic, Values: values})
	}
	commands, err := pipe.Exec(messages[0].Context())
	var faults []error
	for _, c := range commands {
		if c.Err() != nil {
			faults = append(faults, c.Err())
			break
		}
	}
	if err := errors.Join(append(faults, err)...); err != nil {
		return fmt.Errorf("add %d entries to %s: %w", len(messages), topic, err)
	}
	return nil
}

// Close implements message.Publisher. The client is the caller's.
func (p *Publisher) Close() error { return nil }
