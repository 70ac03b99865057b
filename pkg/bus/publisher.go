package bus

import (
	"fmt"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"
)

// Publisher adds messages to streams. It is safe for concurrent use.
type Publisher struct {
	client     redis.UniversalClient
	marshaller redisstream.Marshaller
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher on client.
func NewPublisher(client redis.UniversalClient) *Publisher {
	return &Publisher{client: client, marshaller: redisstream.DefaultMarshallerUnmarshaller{}}
}

// Publish implements message.Publisher. Redis adds all messages of a call or none,
// in order and in one round trip, so a retry cannot put an older message behind a
// newer one. After an error that does not come from Redis itself, such as a timeout,
// the messages may have been added; a retry then makes duplicates, which consumers
// recognise by the message's UUID.
func (p *Publisher) Publish(topic string, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	ctx := messages[0].Context()
	pipe := p.client.TxPipeline()
	for _, m := range messages {
		values, err := p.marshaller.Marshal(topic, m)
		if err != nil {
			return fmt.Errorf("encode message %s: %w", m.UUID, err)
		}
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: values})
	}
	commands, err := pipe.Exec(ctx)
	for _, c := range commands {
		if c.Err() != nil {
			err = c.Err() // That of the first command has the reason why EXEC was refused.
			break
		}
	}
	if err != nil {
		return fmt.Errorf("add %d entries to %s: %w", len(messages), topic, err)
	}
	return nil
}

// Close implements message.Publisher. It leaves the client open.
func (p *Publisher) Close() error { return nil }
