package bus

import (
	"context"
	"fmt"
	"slices"

	"github.com/redis/go-redis/v9"
)

// group is the progress of a consumer group.
type group struct {
	pending      int64
	delivered    entryID // the last entry that a consumer of the group has read
	acknowledged entryID // every entry before this one is acknowledged
}

// groupsOf returns the consumer groups of a stream by name; none if there is no
// stream.
func groupsOf(ctx context.Context, client redis.UniversalClient, topic string) (map[string]group, error) {
	infos, err := client.XInfoGroups(ctx, topic).Result()
	if noStream(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("inspect %s: %w", topic, err)
	}
	groups := make(map[string]group, len(infos))
	for _, info := range infos {
		delivered := parseEntryID(info.LastDeliveredID)
		g := group{pending: info.Pending, delivered: delivered, acknowledged: delivered}
		if info.Pending > 0 {
			oldest, err := client.XPending(ctx, topic, info.Name).Result()
			if err != nil {
				return nil, fmt.Errorf("inspect %s: %w", topic, err)
			}
			if oldest.Count > 0 {
				g.acknowledged = slices.MinFunc([]entryID{g.acknowledged, parseEntryID(oldest.Lower)}, entryID.compare)
			}
		}
		groups[info.Name] = g
	}
	return groups, nil
}

// removeIdle is a script, so that a consumer cannot read entries between the check
// and its removal: Redis would drop them from the pending list.
var removeIdle = redis.NewScript(`
	local removed = 0
	for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
		local c = {}
		for i = 1, #info, 2 do c[info[i]] = info[i + 1] end
		if c.name ~= ARGV[2] and c.pending == 0 and c.idle > tonumber(ARGV[3]) then
			redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], c.name)
			removed = removed + 1
		end
	end
	return removed`)

// removeIdleConsumers removes consumers that have no pending entries and have not
// been active for ConsumerTTL.
func (s *subscription) removeIdleConsumers(ctx context.Context) error {
	n, err := removeIdle.Run(ctx, s.cfg.Client, []string{s.topic}, s.cfg.Group, s.cfg.Consumer, s.cfg.ConsumerTTL.Milliseconds()).Int()
	if err != nil {
		return fmt.Errorf("remove idle consumers of %s: %w", s.topic, err)
	}
	if n > 0 {
		s.cfg.Log.InfoContext(ctx, "idle consumers removed", "topic", s.topic, "count", n)
	}
	return nil
}
