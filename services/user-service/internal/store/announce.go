package store

import (
	"context"
	"maps"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// announcement is a change whose writer waits for replies.
type announcement struct {
	number string
	done   chan struct{} // closed when all have replied

	got      map[string]bool
	want     registry // nil until it is known
	complete bool
}

// expect returns an announcement that is not sent yet. The caller calls await or forget.
func (p *peers) expect() *announcement {
	a := &announcement{number: strconv.FormatInt(p.number.Add(1), 10), done: make(chan struct{}), got: map[string]bool{}}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected[a.number] = a
	return a
}

func (p *peers) forget(a *announcement) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.expected, a.number)
}

// announcing announces a change and returns the registry. If Redis is full, it empties the
// registry instead, so that everybody flushes before the next renewal.
var announcing = redis.NewScript(`
local all = redis.call('HGETALL', KEYS[1])
local reply = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', ARGV[1], '*', 'stripe', ARGV[2], 'from', ARGV[3], 'number', ARGV[4])
if type(reply) == 'table' and reply.err then
  redis.call('DEL', KEYS[1])
end
return all`)

// announce makes all instances drop the profiles of a user's stripe. They reply if number is
// not empty.
func (p *peers) announce(ctx context.Context, userID, number string) (registry, error) {
	pairs, err := announcing.Run(ctx, p.cache.client, []string{registryKey, changesKey}, maxChanges, stripeOf(userID), p.id, number).StringSlice()
	if err != nil {
		return nil, err
	}
	all := registry{}
	for i := 0; i+1 < len(pairs); i += 2 {
		all[pairs[i]] = pairs[i+1]
	}
	return all, nil
}

// aloneAt returns when no instance can have a lease any more, because Redis renews none.
func (p *peers) aloneAt() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.failingAt.IsZero() {
		return time.Now().Add(leaseOver)
	}
	return p.failingAt.Add(leaseOver)
}

// await returns when no instance uses what it had in memory before a, which was just
// announced to all: they have replied, or their leases have run out. Those that neither reply
// nor renew are removed from the registry, so that the next writer does not wait for them.
func (p *peers) await(ctx context.Context, a *announcement, all registry) error {
	defer p.forget(a)
	end := time.Now().Add(leaseOver)
	sure := p.want(a, all)
	if sure.After(end) {
		sure = end
	}
	select {
	case <-time.After(time.Until(sure)):
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case <-a.done:
	case <-time.After(time.Until(end)):
		p.remove(ctx, a)
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// want notes who has to reply, and returns when all who have leases are known.
func (p *peers) want(a *announcement, all registry) (sureAt time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	sureAt = p.sureAt
	if p.own == "" || !strings.HasPrefix(all[p.id], p.own) {
		sureAt = time.Now().Add(2 * leaseOver)
	}
	a.want = maps.Clone(all)
	delete(a.want, p.id)
	a.check()
	return sureAt
}

// receive notes the replies to announcements.
func (p *peers) receive(replies []redis.XMessage) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, entry := range replies {
		p.lastReply = entry.ID
		number, _ := entry.Values["number"].(string)
		by, _ := entry.Values["by"].(string)
		if a := p.expected[number]; a != nil {
			a.got[by] = true
			a.check()
		}
	}
}

// check closes done when all have replied.
func (a *announcement) check() {
	if a.want == nil || a.complete {
		return
	}
	for id := range a.want {
		if !a.got[id] {
			return
		}
	}
	a.complete = true
	close(a.done)
}

// removing removes instances whose values in the registry are still the same.
var removing = redis.NewScript(`
for i = 1, #ARGV, 2 do
  if redis.call('HGET', KEYS[1], ARGV[i]) == ARGV[i + 1] then
    redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return 0`)

// remove removes the instances that have not replied, unless they have renewed their leases.
func (p *peers) remove(ctx context.Context, a *announcement) {
	var silent []any
	p.mu.Lock()
	for id, value := range a.want {
		if !a.got[id] {
			silent = append(silent, id, value)
		}
	}
	p.mu.Unlock()
	if len(silent) > 0 {
		// If that fails, the next writer does it.
		_ = removing.Run(ctx, p.cache.client, []string{registryKey}, silent...).Err()
	}
}
