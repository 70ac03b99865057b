package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/service"
)

const (
	oversizedEntries = 32
	oversized        = 9000
)

// addOversized adds entries whose ids no index can hold, and waits until they are dead
// letters.
func addOversized(ctx context.Context, p *phase) error {
	random := rand.New(rand.NewPCG(p.opts.seed, 9000))
	own := map[string]*entrySet{}
	for stream := range streams {
		own[stream] = newEntrySet()
		for n := range oversizedEntries {
			added, err := p.observer.redis.XAdd(ctx, &redis.XAddArgs{Stream: stream, Values: oversizedEntry(random, n)}).Result()
			if err != nil {
				return fmt.Errorf("add oversized entry: %w", err)
			}
			own[stream].add(stream, added)
			p.injected.add(stream, added)
			p.malformed.add(stream, added)
		}
	}
	added := time.Now()
	p.late = append(p.late, func(ctx context.Context) error {
		for stream, consumer := range streams {
			n, err := p.deadLettersOf(ctx, own[stream])
			if err != nil {
				return err
			}
			if n != oversizedEntries && !p.wasReverted(databases[consumer], added) {
				return fmt.Errorf("%d of %d entries of %s with long ids became dead letters", n, oversizedEntries, stream)
			}
		}
		return nil
	})
	p.hits = oversizedEntries
	return nil
}

// oversizedEntry returns an entry with an id of 9,000 characters that cannot be compressed.
func oversizedEntry(random *rand.Rand, n int) []any {
	const alphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	long := make([]byte, oversized)
	for i := range long {
		long[i] = alphabet[random.IntN(len(alphabet))]
	}
	messageID, payload := string(long), "{}"
	if n%2 == 0 {
		messageID = uuid.NewString()
		payload = fmt.Sprintf(`{"id":%q,"name":"user.signed_up.v1","occurredAt":"2026-01-01T00:00:00Z","producer":"chaos","data":{}}`, long)
	}
	return []any{"_watermill_message_uuid", messageID, "metadata", "\x80", "payload", payload}
}

const (
	replays     = 500
	replayDelay = time.Second // of each mail
)

// replayMany makes dead letters of mails that the mail server rejects, and replays all of
// them when it is slow, but accepts them.
func replayMany(ctx context.Context, p *phase) error {
	signer, err := bus.GeneratedSigner(service.Common{LocalDir: p.stack.dir}, authService)
	if err != nil {
		return fmt.Errorf("read the signing key: %w", err)
	}
	p.stack.smtp.behave(rejectsLater, 0)
	pipe := p.observer.redis.Pipeline()
	operations := make([]operation, replays)
	for n := range operations {
		o := p.workload.begin(notify, fmt.Sprintf("%s%d-%d@example.com", later, p.opts.seed, n))
		pipe.XAdd(ctx, &redis.XAddArgs{Stream: "email-events", Values: notification(signer, o)})
		operations[n] = o
	}
	commands, err := pipe.Exec(ctx)
	if err != nil {
		return fmt.Errorf("add notifications: %w", err)
	}
	for _, c := range commands {
		if added, ok := c.(*redis.StringCmd); ok {
			p.injected.add("email-events", added.Val())
		}
	}
	const open = `SELECT count(*) FROM dead_letters WHERE type = 'user.password_changed.v1' AND status = 'open'`
	err = eventually(ctx, 30*time.Second, "the mails are dead letters", func() (bool, error) {
		n, err := p.observer.count(ctx, "email", open)
		p.hits = n
		return n >= replays, err
	})
	p.stack.smtp.behave(accepts, replayDelay)
	if err != nil {
		return err
	}
	if err := p.stack.operate(ctx, emailService, "dead-letters", "replay", "-type", "user.password_changed.v1", "-max", strconv.Itoa(replays)); err != nil {
		return err
	}
	for _, o := range operations {
		p.workload.finish(o, answer{status: 200})
	}
	return nil
}

// notification returns an entry that email-service has to mail.
func notification(signer *event.Signer, o operation) map[string]any {
	id := uuid.Must(uuid.NewV7()).String()
	e, err := json.Marshal(object{
		"id": id, "name": "user.password_changed.v1", "occurredAt": time.Now().UTC(), "producer": authService, "subject": uuid.NewString(),
		"actor": object{"type": "service"}, "outcome": "success", "requestId": o.ID,
		"data": object{"method": "change", "email": o.Email, "name": "Ada"},
	})
	if err != nil {
		panic(fmt.Sprintf("encode a notification: %v", err)) // It has only texts.
	}
	const name = "user.password_changed.v1"
	m := message.NewMessage(id, e)
	m.Metadata = message.Metadata{
		bus.NameKey: name, bus.KeyIDKey: signer.KeyID(), bus.SignatureKey: signer.Sign(event.Email, id, name, e),
	}
	values, err := redisstream.DefaultMarshallerUnmarshaller{}.Marshal(string(event.Email), m)
	if err != nil {
		panic(fmt.Sprintf("encode a notification: %v", err)) // It has only texts.
	}
	return values
}
