package tests

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestSEC73RedisUsers is SEC-73: the Redis user of a service can reach its own streams and
// keys and no others. It uses the start script of the deployment.
func TestSEC73RedisUsers(t *testing.T) {
	t.Parallel()
	connect := startRedisWithUsers(t)
	operator := connect("operator", "password-of-OPERATOR")
	testkit.Eventually(t, 10*time.Second, func() error { return operator.Ping(t.Context()).Err() })
	for _, c := range []redis.UniversalClient{connect("", ""), connect("auth-service", "guess"), connect("auth-service", "password-of-USER")} {
		if err := c.Ping(t.Context()).Err(); err == nil {
			t.Error("a client without the password was accepted")
		}
	}

	forbidden := [][]any{
		{"FLUSHALL"},
		{"KEYS", "*"},
		{"CONFIG", "GET", "*"},
		{"ACL", "LIST"},
		{"CLIENT", "KILL", "TYPE", "normal"},
		{"XTRIM", "someone-elses", "MAXLEN", 0},
		{"DEL", "audit-events"},
		{"XRANGE", "email-events", "-", "+"},
		{"GET", "other"},
		{"SHUTDOWN"},
		script("other", "return redis.call('GET', KEYS[1])"),
	}
	follow := []any{"XREAD", "STREAMS", "user-events", "0"}
	for user, tc := range map[string]struct{ may, mayNot [][]any }{
		"auth-service": {
			may: [][]any{
				{"PING"}, {"TIME"}, addEntry("email-events"), addEntry("audit-events"), addEntry("user-events"), postWatermark("email-events"), readRequests("user-events"), follow,
			},
			mayNot: append(consumeAs("email-events", "email-service"), addEntry("rl:{x}:y"), []any{"XTRIM", "audit-events", "MAXLEN", 0}),
		},
		"user-service": {
			may: append(consumeAs("user-events", "user-service"), follow, addEntry("audit-events"), addEntry("user-events"),
				script("user:profile:v1:x", "redis.call('SET', KEYS[1], 'v') return redis.call('GET', KEYS[1])"), []any{"GET", "user:profile:v1:x"}, []any{"DEL", "user:profile:v1:x"}),
			mayNot: append(consumeAs("email-events", "email-service"), addEntry("email-events")),
		},
		"email-service": {
			may:    append(consumeAs("email-events", "email-service"), follow, addEntry("audit-events"), postWatermark("audit-events"), readRequests("audit-events")),
			mayNot: append(consumeAs("audit-events", "audit-service"), addEntry("email-events"), addEntry("user-events"), postWatermark("email-events")),
		},
		"audit-service": {
			may:    append(consumeAs("audit-events", "audit-service"), follow, addEntry("audit-events"), postWatermark("audit-events"), readRequests("audit-events")),
			mayNot: append(consumeAs("email-events", "email-service"), addEntry("email-events"), readRequests("email-events")),
		},
		"gateway": {
			may:    [][]any{{"PING"}, script("rl:{x}:login:y", "redis.call('ZADD', KEYS[1], redis.call('TIME')[1], 'm') redis.call('PEXPIRE', KEYS[1], 1000) return redis.call('ZCARD', KEYS[1])"), follow},
			mayNot: [][]any{addEntry("audit-events"), addEntry("user-events"), {"GET", "user:profile:v1:x"}, {"XREAD", "STREAMS", "audit-events", "0"}},
		},
	} {
		client := connect(user, "password-of-"+strings.ToUpper(strings.TrimSuffix(user, "-service")))
		for _, command := range tc.may {
			if err := client.Do(context.Background(), command...).Err(); refused(err) {
				t.Errorf("%s: %v = %v", user, command, err)
			}
		}
		for _, command := range append(tc.mayNot, forbidden...) {
			if err := client.Do(context.Background(), command...).Err(); !refused(err) {
				t.Errorf("%s may do %v (%v)", user, command, err)
			}
		}
	}
}

func script(key, body string) []any { return []any{"EVAL", body, 1, key} }

// consumeAs returns the commands of a consumer group, with its part of the reconciliation.
func consumeAs(topic, group string) [][]any {
	return [][]any{
		{"XGROUP", "CREATE", topic, group, "0", "MKSTREAM"},
		{"XREADGROUP", "GROUP", group, "c", "COUNT", 1, "STREAMS", topic, ">"},
		{"XACK", topic, group, "0-1"},
		{"XCLAIM", topic, group, "c", 0, "0-1", "JUSTID"},
		{"XAUTOCLAIM", topic, group, "c", 1, "0"},
		{"XINFO", "GROUPS", topic},
		{"XINFO", "STREAM", topic},
		{"XTRIM", topic, "MINID", "~", "0-1"},
		script(topic, "redis.call('XINFO', 'CONSUMERS', KEYS[1], '"+group+"') return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], '"+group+"', 'gone')"),
		{"HGETALL", "watermark:published:" + topic},
		{"HSET", "republish:requested:" + topic + ":auth-service", group, "{}"},
		{"HDEL", "republish:requested:" + topic + ":auth-service", group},
	}
}

func addEntry(topic string) []any { return []any{"XADD", topic, "*", "f", "v"} }

func postWatermark(topic string) []any {
	return []any{"HSET", "watermark:published:" + topic, "producer", "{}"}
}

func readRequests(topic string) []any {
	return []any{"HGETALL", "republish:requested:" + topic + ":producer"}
}

// startRedisWithUsers runs the start script of the deployment. It returns a function that
// connects as a user.
func startRedisWithUsers(t *testing.T) (connect func(user, password string) redis.UniversalClient) {
	t.Helper()
	port, err := localserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	server := exec.Command("sh", filepath.Join(root, "deploy/redis/start.sh"), "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", dir)
	server.Env = append(os.Environ(), "ACL_FILE="+filepath.Join(dir, "users.acl"))
	for _, name := range []string{"AUTH", "USER", "EMAIL", "AUDIT", "GATEWAY", "OPERATOR"} {
		server.Env = append(server.Env, "REDIS_"+name+"_PASSWORD=password-of-"+name)
	}
	var output bytes.Buffer
	server.Stdout, server.Stderr = &output, &output
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = server.Wait() // It was killed.
		if t.Failed() {
			t.Logf("output of redis-server:\n%s", &output)
		}
	})
	return func(user, password string) redis.UniversalClient {
		address := url.URL{Scheme: "redis", Host: fmt.Sprintf("127.0.0.1:%d", port), User: url.UserPassword(user, password)}
		client, err := bus.Redis{RedisURL: service.Secret(address.String())}.Open(5 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return client
	}
}

func refused(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "NOPERM") || strings.Contains(err.Error(), "can't access"))
}
