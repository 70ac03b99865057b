package token

import (
	"crypto"
	"crypto/ecdsa"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The bounds of the memory for tokens that were found good: at most 64 MB, and about
// 20 MB with tokens of the usual length.
const (
	maxVerified      = 32_768
	maxVerifiedBytes = 2 << 10
)

// verified is what is known of a token that was found good.
type verified struct {
	raw      string
	identity Identity
	kid      string
	key      atomic.Pointer[crypto.PublicKey]
	expires  time.Time // including the leeway
}

// by reports whether key is the one that the token was checked with. It is another
// value each time that the keys are fetched.
func (v *verified) by(key crypto.PublicKey) bool {
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

// cache remembers tokens that were found good: checking a signature again takes a
// hundred times as long. When it is full, the half that was not used for the longest
// time is forgotten at once, so a look-up needs no bookkeeping. Only what is good
// gets in, so nobody can fill it with what they make up. It is safe for concurrent
// use.
type cache struct {
	mu    sync.RWMutex
	young map[string]*verified // used since the last turn
	old   map[string]*verified
}

func newCache() *cache { return &cache{young: map[string]*verified{}} }

// get returns nil for a token that is not known.
func (c *cache) get(raw string) *verified {
	c.mu.RLock()
	key := signature(raw)
	v, aged := c.young[key], false
	if v == nil {
		v = c.old[key]
		aged = v != nil
	}
	c.mu.RUnlock()
	if v != nil && v.raw != raw {
		return nil
	}
	if aged {
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
	if len(c.young) >= maxVerified/2 {
		c.old, c.young = c.young, make(map[string]*verified, maxVerified/2)
	}
	c.young[signature(v.raw)] = v
}

func (c *cache) forget(raw string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, signature(raw))
	delete(c.old, signature(raw))
}

// signature returns the last part of a token, which is enough to find it by and
// shorter than the whole.
func signature(raw string) string { return raw[strings.LastIndexByte(raw, '.')+1:] }
