package store_test

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestGenerationOfCluster is REL-43: in a Cluster, instances agree on a generation of all
// masters, which stays the same while none is replaced, and share the cache.
func TestGenerationOfCluster(t *testing.T) {
	t.Parallel()
	db, nodes := testkit.Database(t), startCluster(t)
	clusterURL := fmt.Sprintf("redis://%s/?addr=%s", nodes[0], nodes[1])
	here, there := newInstance(t, db, clusterURL), newInstance(t, db, clusterURL)
	first := here.generation.Current()
	if first == "" || there.generation.Current() != first {
		t.Fatalf("two instances have the generations %q and %q", first, there.generation.Current())
	}
	for range 20 { // on both masters
		userID := uuid.NewString()
		put(t, here.Cache, version(userID, 1))
		if p, ok := get(t, there.Cache, userID); !ok || p.Version != 1 {
			t.Errorf("Get = version %d, %v, want 1", p.Version, ok)
		}
	}
	if last := here.generation.Current(); last != first {
		t.Errorf("the generation was %q and is %q", first, last)
	}
}

// startCluster starts two masters and returns their addresses.
func startCluster(t *testing.T) (nodes [2]string) {
	t.Helper()
	var ports, busPorts [2]int
	var admins [2]*redis.Client
	for i := range nodes {
		var err error
		if busPorts[i], err = localserver.FreePort(t.Context()); err != nil {
			t.Fatal(err)
		}
		ports[i] = startServer(t, "--save", "", "--cluster-enabled", "yes", "--cluster-port", strconv.Itoa(busPorts[i]))
		nodes[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(ports[i]))
		admins[i] = redis.NewClient(&redis.Options{Addr: nodes[i]})
		t.Cleanup(func() { admins[i].Close() })
	}
	for i, slots := range [][2]int{{0, 8191}, {8192, 16383}} {
		if err := admins[i].ClusterAddSlotsRange(t.Context(), slots[0], slots[1]).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := admins[0].Do(t.Context(), "CLUSTER", "MEET", "127.0.0.1", ports[1], busPorts[1]).Err(); err != nil {
		t.Fatal(err)
	}
	for _, admin := range admins {
		testkit.Eventually(t, func() error {
			info, err := admin.ClusterInfo(t.Context()).Result()
			if err == nil && !strings.Contains(info, "cluster_state:ok") {
				err = errors.New("the cluster is not ready")
			}
			return err
		})
	}
	return nodes
}
