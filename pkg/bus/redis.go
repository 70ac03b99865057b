// Package bus moves events over Redis Streams: a pipelined publisher, a
// windowed subscriber, and a consumer that runs Watermill's router with retry
// and poison-queue middleware around a service's handlers. The wire format is
// watermill-redisstream's, so either side can be the stock one.
package bus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/service"
)

// Redis is the part of the configuration that says where Redis is: one server,
// the master that Sentinels name, or a Cluster.
type Redis struct {
	RedisURL service.Secret `envconfig:"REDIS_URL" required:"true" desc:"redis://user:password@host:port/0, or rediss:// for TLS. With ?master_name=name the hosts are Sentinels, more of them as &addr=host:port; without it, more hosts make it a Cluster."`
}

// Upkeep is the part of the configuration of services that publish or consume.
type Upkeep struct {
	ReconcileInterval time.Duration `envconfig:"RECONCILE_INTERVAL" default:"15s" desc:"How often producers and consumers compare what was published with what arrived; 1s to 5m."`
	StreamRetention   time.Duration `envconfig:"STREAM_RETENTION" default:"10m" desc:"How long entries stay in a stream after every group has settled them."`
}

// Validate implements service.Validator.
func (u Upkeep) Validate() error {
	var faults []error
	if u.ReconcileInterval < time.Second || u.ReconcileInterval > 5*time.Minute {
		faults = append(faults, errors.New("RECONCILE_INTERVAL: want 1s to 5m"))
	}
	if u.StreamRetention <= 0 {
		faults = append(faults, errors.New("STREAM_RETENTION: want more than 0"))
	}
	return errors.Join(faults...)
}

var errRedisURL = errors.New("REDIS_URL: want redis://user:password@host:port/number")

// Validate implements service.Validator.
func (r Redis) Validate() error {
	_, err := r.options()
	return err
}

// options reads the URL in go-redis's own dialects. No error shows the URL,
// which holds a password.
func (r Redis) options() (*redis.UniversalOptions, error) {
	text := r.RedisURL.Reveal()
	u, err := url.Parse(text)
	if err != nil {
		return nil, errRedisURL
	}
	switch query := u.Query(); {
	case query.Has("master_name"):
		o, err := redis.ParseFailoverURL(text)
		if err != nil || o.MasterName == "" {
			return nil, errRedisURL
		}
		return &redis.UniversalOptions{
			Addrs: o.SentinelAddrs, MasterName: o.MasterName, DB: o.DB, Username: o.Username, Password: o.Password,
			SentinelUsername: o.SentinelUsername, SentinelPassword: o.SentinelPassword, TLSConfig: o.TLSConfig,
		}, nil
	case query.Has("addr"):
		o, err := redis.ParseClusterURL(text)
		if err != nil {
			return nil, errRedisURL
		}
		return &redis.UniversalOptions{
			Addrs: o.Addrs, IsClusterMode: true, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
		}, nil
	}
	o, err := redis.ParseURL(text)
	if err != nil {
		return nil, errRedisURL
	}
	return &redis.UniversalOptions{
		Addrs: []string{o.Addr}, DB: o.DB, Username: o.Username, Password: o.Password, TLSConfig: o.TLSConfig,
	}, nil
}

// Open returns a client that connects with the first command. Its commands obey
// their context, which go-redis ignores by default, and are never retried: a
// retried XADD would add a second entry. timeout bounds each connect, write and
// read. Publishers and subscribers need EventTimeout; a cache or a rate limiter
// needs milliseconds.
func (r Redis) Open(timeout time.Duration) (redis.UniversalClient, error) {
	quiet()
	options, err := r.options()
	if err != nil {
		return nil, err
	}
	options.ContextTimeoutEnabled = true
	options.MaxRetries = -1
	options.DialTimeout = timeout
	options.ReadTimeout = timeout
	options.WriteTimeout = timeout
	options.PoolTimeout = timeout
	options.DialerRetries = 1
	options.DisableIdentity = true // CLIENT SETINFO would need another permission in Redis.
	options.Dialer = func(ctx context.Context, network, addr string) (net.Conn, error) {
		// Keepalive detects within 15 s that a peer has disappeared silently.
		dialer := &net.Dialer{Timeout: timeout, KeepAliveConfig: net.KeepAliveConfig{
			Enable: true, Idle: 5 * time.Second, Interval: 3 * time.Second, Count: 3,
		}}
		if options.TLSConfig != nil {
			return dialTLS(ctx, dialer, network, addr, options.TLSConfig)
		}
		return dialer.DialContext(ctx, network, addr)
	}
	return redis.NewUniversalClient(options), nil
}

// dialTLS checks the certificate of the host that it dials: the nodes of a
// Cluster and the master behind Sentinels have other names than the URL.
func dialTLS(ctx context.Context, dialer *net.Dialer, network, addr string, cfg *tls.Config) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	cfg = cfg.Clone()
	cfg.ServerName = host
	return (&tls.Dialer{NetDialer: dialer, Config: cfg}).DialContext(ctx, network, addr)
}

// quiet keeps go-redis from writing to stderr past the service's own log: every
// failure that it mentions is also returned.
var quiet = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// EventTimeout is the timeout for the clients of publishers and subscribers.
const EventTimeout = 5 * time.Second

// Ping returns a readiness check of a client.
func Ping(client redis.UniversalClient) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := client.Ping(ctx).Err(); err != nil {
			return fmt.Errorf("ping redis: %w", err)
		}
		return nil
	}
}
