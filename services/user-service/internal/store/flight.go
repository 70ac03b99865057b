package store

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/services/user-service/internal/profile"
)

// read is one reader's request for a profile.
type read struct {
	userID     string
	load       profile.Load
	generation string // when it began
	stamp      stamp  // when it began
	seen       string // the entry in Redis; empty if there was none
}

const (
	// leaseLifetime is how long the lease of an instance that died keeps others waiting, at most.
	leaseLifetime = 3 * time.Second
	// waitForOther is how long an instance waits for another one that has the lease.
	waitForOther = 500 * time.Millisecond
	pollOther    = 20 * time.Millisecond
	// loadTimeout bounds a read of the database whose requests have ended.
	loadTimeout = 10 * time.Second
	// waitForSlot is how long a request waits until it may read the database.
	waitForSlot = time.Second
	maxRenewals = 4
)

var (
	errBusy       = errors.New("too many profiles are read from the database")
	errContention = errors.New("the entry changes too often")
)

// result is the result of a shared read.
type result struct {
	profile profile.Profile
	err     error
}

// share reads a profile once for all readers of the same lease. An invalidation ends the
// lease in Redis. So two readers with the same token have seen the same changes, and a reader
// that begins after a change never gets what was read before it.
func (c *Cache) share(ctx context.Context, r read) (profile.Profile, error) {
	token, known, err := c.lease(ctx, &r)
	switch {
	// Without a lease nothing is shared. Another Redis may have an old copy of one.
	case err != nil, r.generation == "", r.generation != c.generation():
		return c.fromDatabase(ctx, r)
	case token == "":
		return known.profile, known.err
	}
	done := make(chan result, 1)
	c.work.Go(func() { done <- c.fly(context.WithoutCancel(ctx), r, token, time.Now().Add(waitForOther)) })
	select {
	case got := <-done:
		// Its lease may be older than a change that Redis has not got.
		if got.profile.Version < c.minVersions.of(r.userID) {
			return c.fromDatabase(ctx, r)
		}
		return got.profile, got.err
	case <-ctx.Done():
		return profile.Profile{}, ctx.Err()
	}
}

// lease returns the token of the lease to fill the entry of r, or what the entry has become.
func (c *Cache) lease(ctx context.Context, r *read) (token string, known result, err error) {
	proposed := c.instance + ":" + rand.Text()
	for range 3 {
		reply, err := c.breaker.Execute(func() (any, error) {
			return lease.Run(ctx, c.client, keysOf(r.userID), proposed, leaseLifetime.Milliseconds(), r.seen).StringSlice()
		})
		if err != nil {
			return "", result{}, err
		}
		got, ok := reply.([]string)
		switch {
		case ok && len(got) == 1:
			return got[0], result{}, nil
		case !ok || len(got) != 2:
			return "", result{}, errContention
		}
		r.seen = got[1]
		switch p, why, found := c.parse(r.userID, []byte(r.seen)); found {
		case hit:
			return "", result{profile: p}, nil
		case negative:
			return "", result{err: why.err()}, nil
		default:
		}
	}
	return "", result{}, errContention
}

// fly returns the result of the one read for a lease. If the lease is that of another
// instance, it waits until that has filled the entry, at most until the deadline.
func (c *Cache) fly(ctx context.Context, r read, token string, deadline time.Time) result {
	got, _, _ := c.flights.Do(r.generation+token, func() (any, error) {
		for {
			// The read for this lease may be over: then the entry is there.
			next, known, err := c.lease(ctx, &r)
			switch {
			case err == nil && next == "":
				return known, nil
			case err == nil && next != token: // The lease has ended without an entry.
				return c.fly(ctx, r, next, deadline), nil
			case err == nil && !c.owns(token) && time.Now().Before(deadline):
				<-time.After(pollOther)
			default:
				return c.read(ctx, r, token), nil
			}
		}
	})
	known, _ := got.(result)
	return known
}

// owns reports whether a lease is that of this instance.
func (c *Cache) owns(token string) bool { return strings.HasPrefix(token, c.instance+":") }

// read reads a profile from the database and fills the entry.
func (c *Cache) read(ctx context.Context, r read, token string) result {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	p, err := c.fromDatabase(ctx, r)
	switch {
	case err == nil:
		if c.put(ctx, r, token, p) {
			c.memory.put(r.stamp, p, r.generation)
		}
	case errors.Is(err, profile.ErrErased):
		c.putMissing(ctx, r, token, erased)
	case errors.Is(err, profile.ErrNotFound):
		c.putMissing(ctx, r, token, absent)
	default:
		// If that fails, the lease runs out.
		_, _ = c.breaker.Execute(func() (any, error) {
			return giveUp.Run(ctx, c.client, keysOf(r.userID)[1:], token).Result()
		})
	}
	return result{p, err}
}

// fromDatabase reads a profile when there is a slot, or fails with problem.ErrUnavailable.
func (c *Cache) fromDatabase(ctx context.Context, r read) (profile.Profile, error) {
	if !c.slots.TryAcquire(1) {
		waiting, cancel := context.WithTimeout(ctx, waitForSlot)
		defer cancel()
		if err := c.slots.Acquire(waiting, 1); err != nil {
			return profile.Profile{}, errors.Join(problem.ErrUnavailable.WithRetryAfter(time.Second), errBusy)
		}
	}
	defer c.slots.Release(1)
	c.reads.Inc()
	return r.load(ctx, r.userID)
}

// renew reads an entry again in the background, unless somebody else does or too many
// entries are being renewed: the next reader tries again.
func (c *Cache) renew(ctx context.Context, r read) {
	select {
	case c.renewals <- struct{}{}:
	default:
		return
	}
	ctx = context.WithoutCancel(ctx)
	c.work.Go(func() {
		defer func() { <-c.renewals }()
		token, _, err := c.lease(ctx, &r)
		if err == nil && c.owns(token) {
			c.fly(ctx, r, token, time.Now())
		}
	})
}
