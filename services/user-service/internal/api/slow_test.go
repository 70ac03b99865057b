package api_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
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
	operator := redis.NewClient(options)
	defer operator.Close()
	if err := operator.Do(t.Context(), "CLIENT", "PAUSE", "3000", "ALL").Err(); err != nil {
		t.Fatal(err)
	}
	s.want(s.do(me, "PATCH", "/me", `{"bio":"frozen"}`), 200)
	frozen := time.Now()
	slow := 0
	for range 100 {
		start := time.Now()
		if p := s.want(s.do(me, "GET", "/me", ""), 200).profile(t); p.Bio != "frozen" {
			t.Fatalf("bio = %q", p.Bio)
		}
		if time.Since(start) > 150*time.Millisecond {
			slow++
		}
	}
	if slow > 10 {
		t.Errorf("%d of 100 reads were slow", slow)
	}
	t.Logf("100 reads took %s", time.Since(frozen))
}
