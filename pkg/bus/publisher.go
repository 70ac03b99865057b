package bus

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

// Publisher adds messages to streams. It is safe for concurrent use.
type Publisher struct {
	client     redis.UniversalClient
	signer     *event.Signer // nil if messages are not signed
	marshaller redisstream.Marshaller
	limit      int64    // entries that a stream keeps; 0 for all
	added      sync.Map // topics whose entries were added although a highest number could not be raised
}

var _ message.Publisher = (*Publisher)(nil)

// NewPublisher returns a publisher on client of messages that are not signed, or not by it.
func NewPublisher(client redis.UniversalClient) *Publisher {
	return &Publisher{client: client, marshaller: redisstream.DefaultMarshallerUnmarshaller{}}
}

// NewSigningPublisher returns a publisher on client of the events of a producer, with their
// names in the metadata. It signs each for the stream to which it adds it, with the present
// key, so what is published again is valid after a rotation.
func NewSigningPublisher(client redis.UniversalClient, signer *event.Signer) *Publisher {
	p := NewPublisher(client)
	p.signer = signer
	return p
}

// sign adds the signature to messages, whose metadata is the caller's.
func (p *Publisher) sign(topic string, messages []*message.Message) {
	if p.signer == nil {
		return
	}
	for _, m := range messages {
		m.Metadata.Set(KeyIDKey, p.signer.KeyID())
		m.Metadata.Set(SignatureKey, p.signer.Sign(event.Topic(topic), m.UUID, m.Metadata.Get(NameKey), m.Payload))
	}
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
// as atomically, it raises what Redis knows of the highest numbers. If that alone fails,
// because a key has the wrong type, the messages have been added nevertheless: a
// transaction of Redis is not rolled back. Then nothing is added to the topic until the
// numbers can be raised, or each retry would add the messages once more.
func (p *Publisher) PublishNumbered(topic string, highest []HighestNumber, messages ...*message.Message) error {
	if len(messages) == 0 {
		return nil
	}
	ctx := messages[0].Context()
	if _, found := p.added.Load(topic); found {
		if err := p.raise(ctx, highest); err != nil {
			return err
		}
		p.added.Delete(topic)
	}
	p.sign(topic, messages)
	pipe := p.client.TxPipeline()
	for _, h := range highest {
		pipe.ZAddGT(ctx, h.Key, redis.Z{Member: h.Member, Score: float64(h.Number)})
	}
	for _, m := range messages {
		values, err := p.marshaller.Marshal(topic, m)
		if err != nil {
			return fmt.Errorf("encode message %s: %w", m.UUID, err)
		}
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: topic, Values: values, MaxLen: p.limit, Approx: p.limit > 0})
	}
	commands, err := pipe.Exec(ctx)
	failed := slices.IndexFunc(commands, func(c redis.Cmder) bool { return c.Err() != nil })
	switch {
	case failed < 0 && err == nil:
		return nil
	case failed < 0:
	case commands[len(commands)-1].Err() == nil:
		p.added.Store(topic, nil)
		return fmt.Errorf("raise the number in %s: %w", highest[failed].Key, commands[failed].Err())
	default:
		err = commands[failed].Err() // That of the first command has the reason why EXEC was refused.
	}
	return fmt.Errorf("add %d entries to %s: %w", len(messages), topic, err)
}

// raise raises highest numbers without adding messages.
func (p *Publisher) raise(ctx context.Context, highest []HighestNumber) error {
	for _, h := range highest {
		if err := p.client.ZAddGT(ctx, h.Key, redis.Z{Member: h.Member, Score: float64(h.Number)}).Err(); err != nil {
			return fmt.Errorf("raise the number in %s: %w", h.Key, err)
		}
	}
	return nil
}

// Close implements message.Publisher. It leaves the client open.
func (p *Publisher) Close() error { return nil }
