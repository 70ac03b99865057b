package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/event"
)

// Known is what Redis knows of a producer's numbers on one topic.
type Known struct {
	// Added is, by epoch, the highest number that was added to the stream.
	Added map[string]int64
	// Seen is, by epoch, the highest number that a consumer says it has seen.
	Seen map[string]int64
}

// ReadKnown returns what Redis knows of a producer's numbers on a topic.
func ReadKnown(ctx context.Context, client redis.UniversalClient, topic event.Topic, producer string) (Known, error) {
	known := Known{Added: map[string]int64{}, Seen: map[string]int64{}}
	members, err := client.ZRangeWithScores(ctx, KnownKey(string(topic), producer), 0, -1).Result()
	if err == nil && len(members) == 0 {
		// The first start after an upgrade. Later, others can write nothing that is read here.
		members, err = client.ZRangeWithScores(ctx, previousKnownKey(string(topic)), 0, -1).Result()
	}
	if err != nil {
		return Known{}, fmt.Errorf("read known numbers of %s: %w", topic, err)
	}
	for _, m := range members {
		member, _ := m.Member.(string)
		if name, epoch := parseKnownMember(member); name == producer {
			known.Added[epoch] = int64(m.Score)
		}
	}
	consumers, err := readConsumed(ctx, client, topic)
	if err != nil {
		return Known{}, err
	}
	for _, c := range consumers {
		for epoch, consumed := range c.Producers[producer] {
			known.Seen[epoch] = max(known.Seen[epoch], consumed.Seen, consumed.Seq)
		}
	}
	return known, nil
}

// ReadFirst returns, by epoch, the lowest number that the producer's last watermark in
// Redis offered; nothing if there is none that can be decoded.
func ReadFirst(ctx context.Context, client redis.UniversalClient, topic event.Topic, producer string) (map[string]int64, error) {
	data, err := client.Get(ctx, watermarkKey(topic, producer)).Bytes()
	if err != nil && !errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("read watermark of %s: %w", topic, err)
	}
	first := map[string]int64{}
	var w Watermark
	if err == nil && json.Unmarshal(data, &w) == nil && w.hasEpochs() {
		for _, e := range w.epochs() {
			first[e.Epoch] = e.First
		}
	}
	return first, nil
}

// Of returns the highest known number of an epoch.
func (k Known) Of(epoch string) int64 { return max(k.Added[epoch], k.Seen[epoch]) }

// Epochs returns all known epochs with their highest known number.
func (k Known) Epochs() map[string]int64 {
	epochs := map[string]int64{}
	for _, numbers := range []map[string]int64{k.Added, k.Seen} {
		for epoch, seq := range numbers {
			epochs[epoch] = max(epochs[epoch], seq)
		}
	}
	return epochs
}

// readConsumed returns the consumed watermarks of a topic by group. One that cannot
// be decoded is left out: it says nothing.
func readConsumed(ctx context.Context, client redis.UniversalClient, topic event.Topic) (map[string]ConsumedWatermark, error) {
	posted, err := client.HGetAll(ctx, consumedKey(topic)).Result()
	if err != nil {
		return nil, fmt.Errorf("read consumed watermarks of %s: %w", topic, err)
	}
	consumers := make(map[string]ConsumedWatermark, len(posted))
	for group, data := range posted {
		var c ConsumedWatermark
		if json.Unmarshal([]byte(data), &c) == nil {
			consumers[group] = c
		}
	}
	return consumers, nil
}
