package outbox

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/ThreeDotsLabs/watermill/message"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/reconcile"
)

// Publisher adds messages to a stream, all or none, and with them what Redis knows of
// their numbers. It must be safe for concurrent use and return only after the broker
// has answered for every message.
type Publisher interface {
	PublishNumbered(topic string, highest []bus.HighestNumber, messages ...*message.Message) error
}

// batch are rows of a topic that are published together.
type batch struct {
	topic, producer string
	epochs          []epoch
	rows            []row
}

// publish publishes a batch. Afterwards the broker has accepted all rows, or there is an
// error.
func publish(ctx context.Context, publisher Publisher, b batch) error {
	messages := make([]*message.Message, len(b.rows))
	highest := map[string]int64{}
	for i, row := range b.rows {
		epoch := epochOf(b.epochs, row.seq)
		messages[i] = message.NewMessageWithContext(ctx, row.eventID, numbered(row, epoch))
		messages[i].Metadata.Set(bus.NameKey, row.name)
		highest[epoch] = max(highest[epoch], row.seq)
	}
	known := make([]bus.HighestNumber, 0, len(highest))
	for _, epoch := range slices.Sorted(maps.Keys(highest)) {
		known = append(known, bus.HighestNumber{
			Key: reconcile.KnownKey(b.topic, b.producer), Member: reconcile.KnownMember(b.producer, epoch), Number: highest[epoch],
		})
	}
	if err := publisher.PublishNumbered(b.topic, known, messages...); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// numbered returns the payload, a JSON object that is never empty, with the event's
// sequence number and its epoch as the first members.
func numbered(b row, epoch string) []byte {
	const seqMember, epochMember = `{"producerSeq":`, `,"producerEpoch":`
	out := make([]byte, 0, len(seqMember)+20+len(epochMember)+2+len(epoch)+len(b.payload))
	out = strconv.AppendInt(append(out, seqMember...), b.seq, 10)
	if epoch != "" {
		out = strconv.AppendQuote(append(out, epochMember...), epoch) // It has letters and digits only.
	}
	return append(append(out, ','), b.payload[1:]...)
}
