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

// Redis is the part of the configuration with the address of Redis: one server, a
// master known by its Sentinels, or a Cluster.
type Redis struct {
	RedisURL service.Secret `envconfig:"REDIS_URL" ignored:"true" required:"true" desc:"redis://user:password@host:port/0, or rediss:// for TLS. With ?master_name=name the hosts are Sentinels, and &addr=host:port adds one; with &addr=host:port alone they are nodes of a Cluster."`

	RedisPassword service.Secret `envconfig:"REDIS_PASSWORD" ignored:"true" desc:"Password of the user in REDIS_URL (with Sentinels: of the parameter username), instead of one in the URL. No character of it needs to be encoded."`
}

var errRedisURL = errors.New("REDIS_URL: want redis://user:password@host:port/number")

// Validate implements service.Validator.
func (r Redis) Validate() error {
	_, err := r.options()
	return err
}

// options returns what the URL says, with the password.
func (r Redis) options() (*redis.UniversalOptions, error) {
	o, err := parseURL(r.RedisURL.Reveal())
	if err == nil && r.RedisPassword != "" {
		o.Password = r.RedisPassword.Reveal()
	}
	return o, err
}

// parseURL parses a URL in the three dialects of go-redis. Errors never contain the URL,
// because it may contain a password.
func parseURL(text string) (*redis.UniversalOptions, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, errRedisURL
	}
	switch query := u.Query(); { //nolint:forbidigo // go-redis reads it again and refuses what it does not know.
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
	return r.OpenWith(timeout, nil)
}

// OpenWith is Open with a function that is called with each new connection before the
// connection is used. If it fails, so does the command.
func (r Redis) OpenWith(timeout time.Duration, connected func(context.Context, *redis.Conn) error) (redis.UniversalClient, error) {
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
	options.OnConnect = connected
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
	client := redis.NewUniversalClient(options)
	client.AddHook(unavailableHook{})
	return client, nil
}

// dialTLS verifies the certificate against the host that it dials, not the host of
// the URL: the nodes of a Cluster and the master behind Sentinels have other names.
func dialTLS(ctx context.Context, dialer *net.Dialer, network, addr string, cfg *tls.Config) (net.Conn, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	cfg = cfg.Clone()
	cfg.ServerName = host
	return (&tls.Dialer{NetDialer: dialer, Config: cfg}).DialContext(ctx, network, addr)
}

// quiet keeps go-redis from writing its own log to stderr. Every failure that it
// would log is also returned.
var quiet = sync.OnceFunc(func() { redis.SetLogger(silence{}) })

type silence struct{}

func (silence) Printf(context.Context, string, ...any) {}

// EventTimeout is the timeout for the clients of publishers and subscribers.
const EventTimeout = 5 * time.Second
