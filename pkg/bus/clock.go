package bus

import (
	"context"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// timeAt returns the time of the server that has the stream. Its clock makes the ids of
// the entries, and the clock of this process may be wrong. In a Cluster, a TIME without a
// key would go to any server, which may be away while the stream is available.
func timeAt(ctx context.Context, client redis.UniversalClient, stream string) (time.Time, error) {
	var server redis.Cmdable = client
	if cluster, ok := client.(*redis.ClusterClient); ok {
		node, err := cluster.MasterForKey(ctx, stream)
		if err != nil {
			return time.Time{}, fmt.Errorf("find server of %s: %w", stream, markUnavailable(err))
		}
		server = node
	}
	now, err := server.Time(ctx).Result()
	if err != nil {
		return time.Time{}, fmt.Errorf("read Redis time: %w", markUnavailable(err))
	}
	return now, nil
}
