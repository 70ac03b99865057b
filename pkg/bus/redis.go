// Package bus moves events over Redis Streams: a pipelined publisher, a
// windowed subscriber, and a consumer that runs Watermill's router with retry
// and poison-queue middleware around a service's handlers. The wire format is
// watermill-redisstream's, so either side can be the stock one.
package bus

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/service"
)

// Redis is the part of the configuration that says where Redis is.
type Redis struct {
	RedisURL service.Secret `envconfig:"REDIS_URL" required:"true" desc:"redis://user:password@host:port/0, or rediss:// for TLS."`
}

// Validate implements service.Validator.
func (r Redis) Validate() error {
	if _, err := redis.ParseURL(r.RedisURL.Reveal()); err != nil {
		return errors.New("REDIS_URL: want redis://user:password@host:port/number")
	}
	return nil
}

// Open returns a client whose commands honour their context, which go-redis
// ignores by default, and are never repeated behind the caller's back: a
// repeated XADD is a second entry. patience bounds each connect, write and
// read; an event path wants seconds, a cache or limiter milliseconds. Nothing
// is connected before the first command.
func (r Redis) Open(patience time.Duration) (*redis.Client, error) {
	quiet()
	options, err := redis.ParseURL(r.RedisURL.Reveal())
	if err != nil {
		return nil, errors.New("read REDIS_URL: malformed") // err could show the password
	}
	options.ContextTimeoutEnabled = true
	options.MaxRetries = -1
	options.DialTimeout = patience
	options.ReadTimeout = patience
	options.WriteTimeout = patience
	options.PoolTimeout = patience
	options.DialerRetries = 1
	options.DisableIdentity = true // CLIENT SETINFO is one more command to allow.
	options.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		// Keepalive tells of a peer that vanished without a word within 15 s.
		dialer := &net.Dialer{Timeout: patience, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3,
		}}
		if options.TLSConfig != nil {
			return dialTLS(ctx, dialer, network, addr, options.TLSConfig)
		}
		return dialer.DialContext(ctx, network, addr)
	}
	return redis.NewClient(options), nil
}

// quiet keeps go-redis from writing to stderr past the service's own log: every
// failure that it mentions is also returned.
var quiet = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// EventPatience is the patience that publishers and subscribers want.
const EventPatience = 5 * time.Second

// Ping returns a readiness check of a client.
func Ping(client redis.UniversalClient) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := client.Ping(ctx).Err(); err != nil {
			return fmt.Errorf("ping redis: %w", err)
		}
		return nil
	}
}
