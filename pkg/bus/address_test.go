package bus_test

import (
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestREL96RedisAddresses is REL-96: each form of the URL of one server is understood as
// redis-cli does, and errors contain nothing of it.
func TestREL96RedisAddresses(t *testing.T) {
	t.Parallel()
	type understood struct {
		addr, username, password string
		db                       int
		tls                      bool
	}
	for address, want := range map[string]understood{
		"redis://h":                       {addr: "h:6379"},
		"redis://:geheim@h:6379/0":        {addr: "h:6379", password: "geheim"},
		"redis://default:geheim@h:6379/0": {addr: "h:6379", username: "default", password: "geheim"},
		"rediss://app:p%40w@h:6380/3":     {addr: "h:6380", username: "app", password: "p@w", db: 3, tls: true},
		"redis://app:p%23%2F%3Fw@h":       {addr: "h:6379", username: "app", password: "p#/?w"},
		"redis://app:x@[::1]:6380/1":      {addr: "[::1]:6380", username: "app", password: "x", db: 1},
		"unix:///run/redis.sock?db=1":     {addr: "/run/redis.sock", db: 1},
		"unix://app:x@/run/redis.sock":    {addr: "/run/redis.sock", username: "app", password: "x"},
	} {
		client, err := bus.Redis{RedisURL: service.Secret(address)}.Open(time.Second)
		if err != nil {
			t.Errorf("Open(%s) = %v", address, err)
			continue
		}
		defer client.Close()
		o := client.(*redis.Client).Options()
		if got := (understood{o.Addr, o.Username, o.Password, o.DB, o.TLSConfig != nil}); got != want {
			t.Errorf("%s is understood as %+v, want %+v", address, got, want)
		}
	}
	for _, address := range []string{"redis://:ge#heim@h", "redis://:geheim@h/x", "http://:geheim@h", "geheim", "redis://:geheim@h:x/0", "host=h password=geheim"} {
		if err := (bus.Redis{RedisURL: service.Secret(address)}).Validate(); err == nil || strings.Contains(err.Error(), "heim") {
			t.Errorf("Validate(%s) = %v", address, err)
		}
	}
}

// TestREL96RedisSocket is REL-96: Redis is reached through a Unix socket.
func TestREL96RedisSocket(t *testing.T) {
	t.Parallel()
	server, err := url.Parse(testkit.RedisURL(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "redis.sock")
	testkit.Forward(t, path, server.Host)
	client, err := bus.Redis{RedisURL: service.Secret("unix://" + path + "?db=" + strings.TrimPrefix(server.Path, "/"))}.Open(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.Set(t.Context(), "key", "value", 0).Err(); err != nil {
		t.Errorf("SET through a socket = %v", err)
	}
}
