// Package bus moves events over Redis Streams. It has a publisher, a subscriber
// that keeps a window of messages in flight, and a consumer that runs a service's
// handlers in Watermill's router, with retries, a circuit breaker and dead letters.
// The wire format is that of watermill-redisstream, so either side of a stream can
// be the stock part. The package knows no database.
package bus

import (
	"errors"
	"time"
)

// Streams is the part of the configuration of services that publish or consume.
type Streams struct {
	ReconcileInterval time.Duration `envconfig:"RECONCILE_INTERVAL" default:"15s" desc:"How often producers and consumers compare what was published with what arrived; 1s to 5m."`
	StreamRetention   time.Duration `envconfig:"STREAM_RETENTION" default:"10m" desc:"How long entries stay in a stream after every consumer group has acknowledged them."`
	StreamMaxBytes    int64         `envconfig:"STREAM_MAX_BYTES" default:"536870912" desc:"Memory that one stream may take in Redis. Acknowledged entries of a larger stream stay for a minute only, and headgate_stream_over_limit is 1. Entries that a consumer group has not acknowledged are never removed."`
}

// Validate implements service.Validator.
func (s Streams) Validate() error {
	var faults []error
	if s.ReconcileInterval < time.Second || s.ReconcileInterval > 5*time.Minute {
		faults = append(faults, errors.New("RECONCILE_INTERVAL: want 1s to 5m"))
	}
	if s.StreamRetention <= 0 {
		faults = append(faults, errors.New("STREAM_RETENTION: want more than 0"))
	}
	if s.StreamMaxBytes < 1<<20 {
		faults = append(faults, errors.New("STREAM_MAX_BYTES: want 1048576 or more"))
	}
	return errors.Join(faults...)
}
