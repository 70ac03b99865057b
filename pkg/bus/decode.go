package bus

import (
	"encoding/json"
	"fmt"

	"github.com/ThreeDotsLabs/watermill-redisstream/pkg/redisstream"
	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"
)

// Metadata that a subscriber adds to what was published.
const (
	TopicKey     = "headgate_topic"
	EntryKey     = "headgate_entry"      // id of the stream entry
	MalformedKey = "headgate_malformed"  // why the entry is not a message; its fields are the payload, as JSON
	CrashLoopKey = "headgate_crash_loop" // how often it was delivered without an acknowledgement, if that is too often
)

// reservedKeys are the keys that only this package sets.
var reservedKeys = []string{TopicKey, EntryKey, MalformedKey, CrashLoopKey, AttemptsKey, ClassKey, RefusedKey}

// decodeEntry returns the message in a stream entry. It never fails: an entry that
// is not a message becomes a message with MalformedKey.
func decodeEntry(topic string, entry redis.XMessage) *message.Message {
	m, err := unmarshal(entry.Values)
	if err != nil {
		fields, _ := json.Marshal(entry.Values) // A map of strings always encodes.
		id := uuid.NewSHA1(uuid.NameSpaceURL, []byte("redis-stream:"+topic+":"+entry.ID))
		m = message.NewMessage(id.String(), fields)
	}
	for _, key := range reservedKeys {
		delete(m.Metadata, key) // A publisher must not be able to set them.
	}
	if err != nil {
		m.Metadata.Set(MalformedKey, err.Error())
	}
	m.Metadata.Set(TopicKey, topic)
	m.Metadata.Set(EntryKey, entry.ID)
	return m
}

func unmarshal(values map[string]any) (m *message.Message, err error) {
	defer func() {
		// msgpack panics on some malformed bytes.
		if fault := recover(); fault != nil {
			err = fmt.Errorf("decode entry: %v", fault)
		}
	}()
	m, err = redisstream.DefaultMarshallerUnmarshaller{}.Unmarshal(values)
	if err != nil {
		return nil, fmt.Errorf("decode entry: %w", err)
	}
	return m, nil
}
