package tests

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/tests/internal/redisserver"
)

// deployedRedis is Redis as the deployment runs it.
type deployedRedis struct {
	redisserver.Config

	process *child.Process
}

// testPasswords are passwords of all users.
func testPasswords() map[string]string {
	passwords := map[string]string{}
	for _, user := range redisserver.Users {
		passwords[user] = "password-of-" + user
	}
	return passwords
}

// startDeployedRedis starts a server whose users have these passwords.
func startDeployedRedis(t *testing.T, passwords map[string]string) *deployedRedis {
	t.Helper()
	port, err := localserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	r := &deployedRedis{Config: redisserver.Config{Root: root, Dir: t.TempDir(), Port: port, Passwords: passwords, Output: testWriter{t}}}
	r.start(t)
	t.Cleanup(func() { r.process.Kill() })
	return r
}

// start starts the server on its data and waits until it has loaded them.
func (r *deployedRedis) start(t *testing.T) {
	t.Helper()
	var err error
	if r.process, err = redisserver.Start(t.Context(), r.Config); err != nil {
		t.Fatal(err)
	}
}

// restart ends the server with the signal and starts it again.
func (r *deployedRedis) restart(t *testing.T, signal syscall.Signal) {
	t.Helper()
	if err := r.process.Signal(signal); err != nil {
		t.Fatal(err)
	}
	select {
	case <-r.process.Done():
	case <-time.After(testkit.Timeout):
		t.Fatalf("Redis did not end after the signal %v", signal)
	}
	r.start(t)
}

// as returns a client of a user of the deployment. The caller may close it.
func (r *deployedRedis) as(user string) redis.UniversalClient {
	return r.connect(user, r.Passwords[user])
}

func (r *deployedRedis) connect(user, password string) redis.UniversalClient {
	address := url.URL{Scheme: "redis", Host: r.Address(), User: url.UserPassword(user, password)}
	client, err := bus.Redis{RedisURL: service.Secret(address.String())}.Open(5 * time.Second)
	if err != nil {
		panic(fmt.Sprintf("open %s: %v", address.Redacted(), err)) // The address above is valid.
	}
	return client
}

// wantNothingDenied checks that no user was denied anything since the server started.
func (r *deployedRedis) wantNothingDenied(t *testing.T) {
	t.Helper()
	operator := r.as(redisserver.Operator)
	defer operator.Close()
	denied, err := operator.ACLLog(t.Context(), 100).Result()
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range denied {
		t.Errorf("%s may not use %s (%s), which it tried %d times", entry.Username, entry.Object, entry.Reason, entry.Count)
	}
}

// raw sends commands on one new connection and returns the first line of the reply to
// the last one.
func (r *deployedRedis) raw(t *testing.T, commands ...string) (reply string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", r.Address(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		t.Fatal(err)
	}
	replies := bufio.NewReader(conn)
	for _, command := range commands {
		if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if reply, err = replies.ReadString('\n'); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	return strings.TrimSpace(reply)
}

// contents describes every key: a stream by its length and groups, a group by its
// position and pending entries, other keys by their size. A key that expires says so.
func (r *deployedRedis) contents(ctx context.Context, t *testing.T) map[string]string {
	t.Helper()
	operator := r.as(redisserver.Operator)
	defer operator.Close()
	keys, err := operator.Keys(ctx, "*").Result()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, key := range keys {
		text, err := describeKey(ctx, operator, key)
		if err != nil {
			t.Fatalf("inspect %s: %v", key, err)
		}
		ttl, err := operator.PTTL(ctx, key).Result()
		if err != nil {
			t.Fatalf("inspect %s: %v", key, err)
		}
		if ttl > 0 {
			text += ", expires"
		}
		found[key] = text
	}
	return found
}

func describeKey(ctx context.Context, client redis.UniversalClient, key string) (string, error) {
	kind, err := client.Type(ctx, key).Result()
	if err != nil {
		return "", err
	}
	switch kind {
	case "stream":
		return describeStream(ctx, client, key)
	case "zset":
		n, err := client.ZCard(ctx, key).Result()
		return fmt.Sprintf("%d members", n), err
	case "hash":
		fields, err := client.HGetAll(ctx, key).Result()
		return fmt.Sprint(fields), err
	case "string":
		return client.Get(ctx, key).Result()
	}
	return kind, nil
}

func describeStream(ctx context.Context, client redis.UniversalClient, key string) (string, error) {
	info, err := client.XInfoStream(ctx, key).Result()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	fmt.Fprintf(&text, "%d entries up to %s", info.Length, info.LastGeneratedID)
	groups, err := client.XInfoGroups(ctx, key).Result()
	if err != nil {
		return "", err
	}
	for _, g := range groups {
		fmt.Fprintf(&text, "; %s at %s, %d pending of %d consumers", g.Name, g.LastDeliveredID, g.Pending, g.Consumers)
	}
	return text.String(), nil
}
