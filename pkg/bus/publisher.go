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
	return p.PublishNumbered(topic, nil, messages...)
}

// HighestNumber is the highest sequence number that was ever added to a stream: the
// score of a member of a Redis sorted set, which must be in the stream's slot.
type HighestNumber struct {
	Key, Member string
	Number      int64
}

// PublishNumbered is Publish for messages with sequence numbers. With the messages, and
// as atomically, it raises what Redis knows of the highest numbers.
func (p *Publisher) PublishNumbered(topic string, highest []HighestNumber, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	ctx := messages[0].Context()
	pipe := p.client.TxPipeline()
	for _, h := range highest {
		pipe.ZAddGT(ctx, h.Key, redis.Z{Member: h.Member, Score: float64(h.Number)})
	}
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
