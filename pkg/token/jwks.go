package token

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net/http"
	"sync"
	"time"

	"github.com/MicahParks/jwkset"

	"github.com/headgate/headgate/pkg/service"
)

// Remote is the part of the configuration that says where auth-service is: the source of
// public keys and of revoked sessions.
type Remote struct {
	JWKSURL string `envconfig:"JWKS_URL" required:"true" desc:"URL of the public keys of auth-service, for example http://auth-service:8080/.well-known/jwks.json."`
}

// JWKS is the set of public keys of auth-service, fetched over HTTP and cached. It keeps
// using the cached keys while auth-service is unavailable. It is safe for concurrent use.
type JWKS struct {
	url    string
	client *http.Client
	outage *service.Outage
	now    func() time.Time

	mu      sync.Mutex
	keys    map[string]crypto.PublicKey
	tried   time.Time
	fetched time.Time     // the last successful fetch
	refresh chan struct{} // closed when the fetch in flight ends; nil if there is none
}

const (
	jwksMaxAge     = time.Minute      // a new key is published for longer than this before it is used
	jwksMinRefetch = 30 * time.Second // for unknown ids, which anybody can make up
	jwksFirstRetry = time.Second      // until the first fetch succeeds
	jwksTimeout    = 3 * time.Second
	jwksMaxBytes   = 256 << 10
)

// NewJWKS returns the set at cfg.JWKSURL. It fetches nothing before the first use.
func NewJWKS(cfg Remote, log *slog.Logger, now func() time.Time) *JWKS {
	outage := service.NewOutage(service.OutageConfig{Log: log, Failing: "key refresh failed; retrying", Over: "keys refreshed again"})
	return &JWKS{url: cfg.JWKSURL, client: &http.Client{Timeout: jwksTimeout, CheckRedirect: noRedirect}, outage: outage, now: now}
}

// noRedirect keeps trust with the configured address: what it redirects to is not asked.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// run fetches the keys regularly until ctx ends, so that an idle process drops retired keys,
// too.
func (j *JWKS) run(ctx context.Context) {
	tick := time.NewTicker(jwksMaxAge)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		j.mu.Lock()
		wait := j.begin(ctx, jwksMaxAge/2)
		j.mu.Unlock()
		if wait != nil {
			<-wait
		}
	}
}

// begin starts a fetch if the last one began at least pause ago. It returns a channel that is
// closed when the fetch in flight ends, or nil if there is none. The caller has locked j.mu.
func (j *JWKS) begin(ctx context.Context, pause time.Duration) <-chan struct{} {
	if j.refresh == nil && j.now().Sub(j.tried) >= pause {
		j.tried = j.now()
		j.refresh = make(chan struct{})
		go j.fetch(context.WithoutCancel(ctx), j.refresh)
	}
	return j.refresh
}

// Key implements Keys. It waits for a fetch only if the id is unknown, and starts a fetch for
// unknown ids at most every 30 s.
func (j *JWKS) Key(ctx context.Context, kid string) (crypto.PublicKey, error) {
	j.mu.Lock()
	key, known := j.keys[kid]
	var pause time.Duration
	switch {
	case known:
		pause = jwksMaxAge
	case j.keys == nil:
		pause = jwksFirstRetry
	default:
		pause = jwksMinRefetch
	}
	wait := j.begin(ctx, pause)
	j.mu.Unlock()

	if known {
		return key, nil
	}
	if wait != nil {
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, ErrNoKeys
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.keys == nil {
		return nil, ErrNoKeys
	}
	if key, ok := j.keys[kid]; ok {
		return key, nil
	}
	return nil, ErrUnknownKey
}

// fetch ends within jwksTimeout. Waiters wait for done.
func (j *JWKS) fetch(ctx context.Context, done chan struct{}) {
	keys, err := j.load(ctx)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.outage.Record(ctx, "", err)
	if err == nil {
		j.keys, j.fetched = keys, j.now()
	}
	j.refresh = nil
	close(done)
}

// age returns how many seconds ago the keys were fetched; infinity if they never were.
func (j *JWKS) age() float64 {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.fetched.IsZero() {
		return math.Inf(1)
	}
	return j.now().Sub(j.fetched).Seconds()
}

func (j *JWKS) load(ctx context.Context) (map[string]crypto.PublicKey, error) {
	ctx, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, j.url, http.NoBody)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	res, err := j.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch keys: %s", res.Status)
	}
	data, err := io.ReadAll(io.LimitReader(res.Body, jwksMaxBytes))
	if err != nil {
		return nil, fmt.Errorf("fetch keys: %w", err)
	}
	return ParseJWKS(data)
}

// ParseJWKS decodes a JWK set (RFC 7517) into its signing keys by id. It skips keys of other
// kinds, and fails if no usable key is left.
func ParseJWKS(data []byte) (map[string]crypto.PublicKey, error) {
	var set jwkset.JWKSMarshal
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, fmt.Errorf("decode key set: %w", err)
	}
	keys := map[string]crypto.PublicKey{}
	for _, marshalled := range set.Keys {
		jwk, err := jwkset.NewJWKFromMarshal(marshalled, jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
		if err != nil {
			continue
		}
		key := jwk.Key()
		if _, err := methodOf(key); err == nil && marshalled.KID != "" {
			keys[marshalled.KID] = key
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("decode key set: no usable key")
	}
	return keys, nil
}

// MarshalJWKS encodes public keys by id as a JWK set.
func MarshalJWKS(keys map[string]crypto.PublicKey) ([]byte, error) {
	set := jwkset.JWKSMarshal{Keys: []jwkset.JWKMarshal{}}
	for kid, key := range keys {
		method, err := methodOf(key)
		if err != nil {
			return nil, fmt.Errorf("encode key %s: %w", kid, err)
		}
		jwk, err := jwkset.NewJWKFromKey(key, jwkset.JWKOptions{Metadata: jwkset.JWKMetadataOptions{
			KID: kid, ALG: jwkset.ALG(method.Alg()), USE: jwkset.UseSig,
		}})
		if err != nil {
			return nil, fmt.Errorf("encode key %s: %w", kid, err)
		}
		set.Keys = append(set.Keys, jwk.Marshal())
	}
	return json.Marshal(set)
}
