package api_test

import (
	"context"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL02FrozenRedis is REL-02: Redis accepts connections and answers nothing.
func TestREL02FrozenRedis(t *testing.T) {
	t.Parallel()
	server, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: filepath.Join(t.TempDir(), "redis")})
	if err != nil {
		t.Fatal(err)
	}
	s := newService(t, server.URL)
	t.Cleanup(func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	me := newUser()
	s.want(s.do(me, "PATCH", "/me", `{"bio":"before"}`), 200)
	s.want(s.do(me, "GET", "/me", ""), 200)
	options, err := redis.ParseURL(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	options.ReadTimeout = testkit.Timeout
	operator := redis.NewClient(options)
	defer operator.Close()
	connections := func() int {
		info, err := operator.InfoMap(t.Context(), "stats").Result()
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(info["Stats"]["total_connections_received"])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := connections()
	if err := operator.Do(t.Context(), "CLIENT", "PAUSE", "12000", "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	s.want(s.do(me, "PATCH", "/me", `{"bio":"frozen"}`), 200)
	frozen := time.Now()
	for range 100 {
		if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Bio != "frozen" {
			t.Fatalf("bio = %q", p.Bio)
		}
	}
	opened, took := connections()-before, time.Since(frozen) // It waits until the pause is over.
	// Who has waited for Redis in vain leaves the connection. While the circuit breaker is
	// open, one request a second does, and so do the pollers.
	if most := 20 + int(5*took.Seconds()); opened > most {
		t.Errorf("%d connections were opened in %s, want at most %d", opened, took, most)
	}
}
