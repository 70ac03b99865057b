package bus_test

import (
	"context"
	"net/url"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestRedisPassword: REDIS_PASSWORD is sent as it is, whatever characters it has. It replaces a
// password in the URL.
func TestRedisPassword(t *testing.T) {
	t.Parallel()
	server, err := url.Parse(testkit.RedisURL(t))
	if err != nil {
		t.Fatal(err)
	}
	admin := testkit.Redis(t)
	user := "password" + server.Path[1:]
	t.Cleanup(func() {
		if err := admin.Do(context.Background(), "ACL", "DELUSER", user).Err(); err != nil {
			t.Error(err)
		}
	})
	ping := func(cfg bus.Redis) error {
		client, err := cfg.Open(time.Second)
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Ping(t.Context()).Err()
	}
	at := "@" + server.Host + server.Path
	for _, password := range testkit.SpecialPasswords {
		if err := admin.Do(t.Context(), "ACL", "SETUSER", user, "reset", "on", ">"+password, "+@all", "~*").Err(); err != nil {
			t.Fatal(err)
		}
		for _, address := range []string{"redis://" + user + at, "redis://" + user + ":wrong" + at} {
			if err := ping(bus.Redis{RedisURL: service.Secret(address), RedisPassword: service.Secret(password)}); err != nil {
				t.Errorf("%s with REDIS_PASSWORD=%s: %v", address, password, err)
			}
		}
	}
	if err := ping(bus.Redis{RedisURL: service.Secret("redis://" + user + ":wrong" + at)}); err == nil {
		t.Error("PING with the wrong password of the URL = nil")
	}
}

// TestRedisPasswordOfTopologies: a Cluster and a master behind Sentinels get it, too; Sentinels
// keep the password of their own.
func TestRedisPasswordOfTopologies(t *testing.T) {
	t.Parallel()
	for _, address := range []string{
		"redis://sentinel:theirs@h:1/0?master_name=main&addr=i:1&username=app&password=wrong",
		"redis://app@h:1?addr=i:1",
	} {
		client, err := bus.Redis{RedisURL: service.Secret(address), RedisPassword: `p@ss:w/o%rd`}.Open(time.Second)
		if err != nil {
			t.Errorf("Open(%s) = %v", address, err)
			continue
		}
		defer client.Close()
		var user, password string
		switch c := client.(type) {
		case *redis.Client:
			user, password = c.Options().Username, c.Options().Password
		case *redis.ClusterClient:
			user, password = c.Options().Username, c.Options().Password
		}
		if user != "app" || password != `p@ss:w/o%rd` {
			t.Errorf("%s signs in as %q with %q", address, user, password)
		}
	}
}
