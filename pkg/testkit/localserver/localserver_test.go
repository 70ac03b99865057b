package localserver_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/testkit/localserver"
)

func stop(t *testing.T, s *localserver.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// reachable is a folder that an unprivileged Postgres can reach.
func reachable(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "localserver-")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := localserver.Clean(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func exec(t *testing.T, url, sql string) (err error) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		return err
	}
	defer conn.Close(context.Background())
	_, err = conn.Exec(t.Context(), sql)
	return err
}

func TestPostgresKeepsItsDataAndTakesOverFromACrash(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(reachable(t), "postgres")}
	first, err := localserver.StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec(t, first.URL, "CREATE TABLE kept (x int)"); err != nil {
		t.Error(err)
	}
	stop(t, first)

	second, err := localserver.StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec(t, second.URL, "INSERT INTO kept VALUES (1)"); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	// Nobody stopped the second one: its data still has an owner.
	third, err := localserver.StartPostgres(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, third)
	select {
	case <-second.Done():
	default:
		t.Error("the server that was left over still runs")
	}
	if err := exec(t, third.URL, "INSERT INTO kept VALUES (2)"); err != nil {
		t.Errorf("after a take-over: %v", err)
	}
}

func TestRedisKeepsItsDataWhenDurable(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(t.TempDir(), "redis"), Durable: true}
	for i := range int64(3) {
		s, err := localserver.StartRedis(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		parsed, err := redis.ParseURL(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		client := redis.NewClient(parsed)
		n, err := client.Incr(t.Context(), "n").Result()
		if err != nil || n != i+1 {
			t.Errorf("start %d: n = %d, %v", i+1, n, err)
		}
		client.Close()
		if i == 1 {
			if err := s.Signal(syscall.SIGKILL); err != nil {
				t.Error(err)
			}
			<-s.Done()
			if s.Err() == nil {
				t.Error("a killed server has no error")
			}
			continue
		}
		stop(t, s)
	}
}

func TestMissingProgramsAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := os.Stat("/usr/local/bin/redis-server"); err == nil {
		t.Skip("this machine has Redis where it is always looked for")
	}
	if _, err := localserver.StartRedis(t.Context(), localserver.Options{Dir: t.TempDir()}); !errors.Is(err, localserver.ErrNotInstalled) {
		t.Errorf("StartRedis = %v, want ErrNotInstalled", err)
	}
}
