package token

import (
	"crypto"
	"crypto/ecdsa"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The limits of the cache: at most 64 MB, and about 20 MB with tokens of the usual length.
const (
	maxVerified      = 32_768
	maxVerifiedBytes = 2 << 10
)

// verified is a token that was verified.
type verified struct {
	raw      string
	identity Identity
	began    time.Time // of its session
	kid      string
	key      atomic.Pointer[crypto.PublicKey]
	expires  time.Time // including the leeway
}

// verifiedWith reports whether the token was verified with key. A key is a new value every time that
// the keys are fetched.
func (v *verified) verifiedWith(key crypto.PublicKey) bool {
	was := *v.key.Load()
	if one, ok := was.(*ecdsa.PublicKey); ok && key == one {
		return true
	}
	k, ok := was.(interface{ Equal(x crypto.PublicKey) bool })
	if ok = ok && k.Equal(key); ok {
		same := key // key itself would be allocated for every call.
		v.key.Store(&same)
	}
	return ok
}

// cache holds verified tokens: verifying a signature again takes a hundred times as long as
// a lookup. When it is full, it drops the least recently used half at once, so a lookup
// needs no bookkeeping. Only valid tokens are added, so nobody can fill it with forged ones.
// It is safe for concurrent use.
type cache struct {
	mu     sync.RWMutex
	recent map[string]*verified // used since the last drop
	old    map[string]*verified
}

func newCache() *cache { return &cache{recent: map[string]*verified{}} }

// get returns nil for a token that is not cached.
func (c *cache) get(raw string) *verified {
	c.mu.RLock()
	key := signature(raw)
	v, isOld := c.recent[key], false
	if v == nil {
		v = c.old[key]
		isOld = v != nil
	}
	c.mu.RUnlock()
	if v != nil && v.raw != raw {
		return nil
	}
	if isOld {
		c.put(v)
	}
	return v
}

func (c *cache) put(v *verified) {
	if len(v.raw) > maxVerifiedBytes {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.recent) >= maxVerified/2 {
		c.old, c.recent = c.recent, make(map[string]*verified, maxVerified/2)
	}
	c.recent[signature(v.raw)] = v
}

func (c *cache) forget(raw string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.recent, signature(raw))
	delete(c.old, signature(raw))
}

// signature returns the last part of a token, a key that is shorter than the token.
func signature(raw string) string { return raw[strings.LastIndexByte(raw, '.')+1:] }
