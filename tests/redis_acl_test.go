package tests

import (
	"context"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"
)

// TestSEC73RedisUsers is SEC-73: the Redis user of a service can reach its own streams and
// keys and no others. It uses the start script of the deployment.
func TestSEC73RedisUsers(t *testing.T) {
	t.Parallel()
	server := startDeployedRedis(t, testPasswords())
	for _, c := range []redis.UniversalClient{server.connect("", ""), server.connect("auth-service", "guess"), server.connect("auth-service", "password-of-user-service")} {
		if err := c.Ping(t.Context()).Err(); err == nil {
			t.Error("a client without the password was accepted")
		}
	}
	wantStrangersRefused(t, server)

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
	var observe, groups [][]any // every service but the gateway, which reads the groups alone
	for _, topic := range []string{"email-events", "audit-events", "user-events"} {
		groups = append(groups, []any{"XINFO", "GROUPS", topic})
		observe = append(observe, []any{"XPENDING", topic, "g"}, []any{"XLEN", topic}, []any{"MEMORY", "USAGE", topic})
	}
	for user, tc := range map[string]struct{ may, mayNot [][]any }{
		"auth-service": {
			may: [][]any{
				{"PING"},
				{"TIME"},
				addEntry("email-events"), addEntry("audit-events"), addEntry("user-events"), postWatermark("email-events", "auth-service"), readRequests("user-events"), follow,
				addKnown("email-events", "auth-service"), readKnown("audit-events", "auth-service"), readConsumed("user-events"),
			},
			mayNot: append(consumeAs("email-events", "email-service"), postConsumed("email-events", "email-service"), addEntry("rl:{x}:y"), addEntry("realtime-events"), []any{"XTRIM", "audit-events", "MAXLEN", 0}, postWatermark("audit-events", "user-service"), addKnown("audit-events", "user-service"), postWatermark("audit-events", "email-service"), addKnown("audit-events", "email-service"), postWatermark("audit-events", "audit-service"), addKnown("audit-events", "audit-service")),
		},
		"user-service": {
			may: append(consumeAs("user-events", "user-service"), follow, addEntry("audit-events"), addEntry("user-events"), addEntry("realtime-events"), addKnown("user-events", "user-service"), readConsumed("audit-events"),
				script("user:profile:v1:x", "redis.call('SET', KEYS[1], 'v') return redis.call('GET', KEYS[1])"), []any{"GET", "user:profile:v1:x"}, []any{"PTTL", "user:profile:v1:x"}, []any{"DEL", "user:profile:v1:x"}, []any{"INFO", "server"},
				script("user:profile:lease:{user:profile:v1:x}", "redis.call('SET', KEYS[1], 't', 'PX', 1000) return redis.call('DEL', KEYS[1])"),
				script(profilePeers+"registry", "redis.call('HSET', KEYS[1], 'i', redis.call('HGET', KEYS[1], 'i') or '') redis.call('HDEL', KEYS[1], 'i') redis.call('DEL', KEYS[1]) return redis.call('HGETALL', KEYS[1])"),
				script(profilePeers+"changes", "redis.call('XADD', KEYS[1], 'MAXLEN', '~', 1, '*', 'user', 'x') return {redis.call('XRANGE', KEYS[1], '-', '+'), redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)}"),
				[]any{"XREAD", "BLOCK", 1, "STREAMS", profilePeers + "changes", profilePeers + "replies:i", "0", "0"}, []any{"PEXPIRE", profilePeers + "replies:i", 1}, []any{"HDEL", profilePeers + "registry", "i"}),
			mayNot: append(consumeAs("email-events", "email-service"), addEntry("email-events"), postWatermark("audit-events", "auth-service"), addKnown("audit-events", "auth-service"), postWatermark("audit-events", "email-service"), addKnown("audit-events", "email-service"), postWatermark("audit-events", "audit-service"), addKnown("audit-events", "audit-service")),
		},
		"email-service": {
			may:    append(consumeAs("email-events", "email-service"), follow, addEntry("audit-events"), addEntry("realtime-events"), postWatermark("audit-events", "email-service"), readRequests("audit-events"), addKnown("audit-events", "email-service")),
			mayNot: append(consumeAs("audit-events", "audit-service"), addEntry("email-events"), addEntry("user-events"), postWatermark("email-events", "email-service"), addKnown("email-events", "email-service"), postWatermark("audit-events", "auth-service"), addKnown("audit-events", "auth-service"), postWatermark("audit-events", "user-service"), addKnown("audit-events", "user-service"), postWatermark("audit-events", "audit-service"), addKnown("audit-events", "audit-service")),
		},
		"audit-service": {
			may:    append(consumeAs("audit-events", "audit-service"), follow, addEntry("audit-events"), addEntry("realtime-events"), postWatermark("audit-events", "audit-service"), readRequests("audit-events"), addKnown("audit-events", "audit-service"), readConsumed("audit-events")),
			mayNot: append(consumeAs("email-events", "email-service"), addEntry("email-events"), readRequests("email-events"), readConsumed("email-events"), postWatermark("audit-events", "auth-service"), addKnown("audit-events", "auth-service"), postWatermark("audit-events", "user-service"), addKnown("audit-events", "user-service"), postWatermark("audit-events", "email-service"), addKnown("audit-events", "email-service")),
		},
		"gateway": {
			may: [][]any{
				{"PING"},
				script("rl:{x}:login:y", "redis.call('ZADD', KEYS[1], redis.call('TIME')[1], 'm') redis.call('PEXPIRE', KEYS[1], 1000) return redis.call('ZCARD', KEYS[1])"), follow,
				{"XREAD", "STREAMS", "realtime-events", "0"},
				{"XINFO", "STREAM", "realtime-events"},
				{"XINFO", "STREAM", "user-events"},
				{"GET", "realtime:epoch"},
				{"SETNX", "realtime:epoch", "e"},
				{"SET", "realtime:ticket:x", "t", "EX", 30},
				{"GETDEL", "realtime:ticket:x"},
			},
			mayNot: [][]any{addEntry("audit-events"), addEntry("user-events"), addEntry("realtime-events"), {"GET", "realtime:ticket:x"}, {"XINFO", "STREAM", "audit-events"}, {"XINFO", "STREAM", "email-events"}, {"GET", "user:profile:v1:x"}, addEntry(profilePeers + "changes"), {"XREAD", "STREAMS", "audit-events", "0"}},
		},
	} {
		if user == "gateway" {
			tc.mayNot = append(tc.mayNot, observe...)
		} else {
			tc.may = append(tc.may, observe...)
		}
		tc.may = append(tc.may, groups...)
		client := server.as(user)
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

// wantStrangersRefused checks that a connection without a service's password can run no
// command, whatever it does to be authenticated. The user default, whose rights a new
// connection has in name, must stay off.
func wantStrangersRefused(t *testing.T, server *deployedRedis) {
	t.Helper()
	for _, tc := range []struct {
		commands []string // the reply to the last one counts
		want     string
	}{
		{[]string{"PING"}, "-NOAUTH"},
		{[]string{"GET user:profile:v1:x"}, "-NOAUTH"},
		{[]string{"FLUSHALL"}, "-NOAUTH"},
		{[]string{"MULTI"}, "-NOAUTH"},
		{[]string{"SUBSCRIBE x"}, "-NOAUTH"},
		{[]string{"REPLICAOF NO ONE"}, "-NOAUTH"},
		{[]string{"HELLO 3"}, "-NOAUTH"},
		{[]string{"HELLO 3 AUTH default x"}, "-WRONGPASS"},
		{[]string{`HELLO 3 AUTH default ""`}, "-WRONGPASS"},
		{[]string{"AUTH x"}, "-WRONGPASS"},
		{[]string{`AUTH ""`}, "-WRONGPASS"},
		{[]string{"AUTH default x"}, "-WRONGPASS"},
		{[]string{`AUTH default ""`}, "-WRONGPASS"},
		{[]string{"AUTH default x", "KEYS *"}, "-NOAUTH"},
		{[]string{"HELLO 3 AUTH default x", "KEYS *"}, "-NOAUTH"},
		{[]string{"RESET", "KEYS *"}, "-NOAUTH"},
		{[]string{"AUTH health any", "PING"}, "+PONG"},
		{[]string{"AUTH health any", "GET x"}, "-NOPERM"},
		{[]string{"AUTH health any", "ACL WHOAMI"}, "-NOPERM"},
		{[]string{"AUTH health any", "AUTH default x"}, "-WRONGPASS"},
		{[]string{"AUTH health any", "AUTH default x", "GET x"}, "-NOPERM"},
		{[]string{"AUTH health any", "RESET", "KEYS *"}, "-NOAUTH"},
	} {
		if got := server.raw(t, tc.commands...); !strings.HasPrefix(got, tc.want) {
			t.Errorf("%q = %s, want %s", tc.commands, got, tc.want)
		}
	}
}

const profilePeers = "user:profile:peers:{v1}:"

func script(key, body string) []any { return []any{"EVAL", body, 1, key} }

// consumeAs returns the commands of a consumer group, with its part of the reconciliation.
func consumeAs(topic, group string) [][]any {
	return [][]any{
		{"XGROUP", "CREATE", topic, group, "0", "MKSTREAM"},
		{"XREADGROUP", "GROUP", group, "c", "COUNT", 1, "STREAMS", topic, ">"},
		{"XACK", topic, group, "0-1"},
		{"XCLAIM", topic, group, "c", 0, "0-1", "JUSTID"},
		{"XAUTOCLAIM", topic, group, "c", 1, "0"},
		{"XINFO", "STREAM", topic},
		{"XTRIM", topic, "MINID", "~", "0-1"},
		script(topic, "redis.call('XINFO', 'CONSUMERS', KEYS[1], '"+group+"') return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], '"+group+"', 'gone')"),
		script("consumer:owner:"+topic+":"+group+":c", "redis.call('SET', KEYS[1], 't', 'PX', 1000) return redis.call('GET', KEYS[1])"),
		script("consumer:owner:"+topic+":"+group+":c", "return redis.call('DEL', KEYS[1])"),
		{"GET", "watermark:published:{" + topic + "}:any-producer"},
		{"HSET", "republish:requested:" + topic + ":auth-service", group, "{}"},
		{"HDEL", "republish:requested:" + topic + ":auth-service", group},
		postConsumed(topic, group),
		{"HGET", "watermark:consumed:{" + topic + "}", group},
	}
}

func addKnown(topic, producer string) []any {
	return []any{"ZADD", "published:{" + topic + "}:" + producer, "GT", 1, "producer EPOCH"}
}

func readKnown(topic, producer string) []any {
	return []any{"ZRANGE", "published:{" + topic + "}:" + producer, 0, -1, "WITHSCORES"}
}

func readConsumed(topic string) []any { return []any{"HGETALL", "watermark:consumed:{" + topic + "}"} }

func postConsumed(topic, group string) []any {
	return []any{"HSET", "watermark:consumed:{" + topic + "}", group, "{}"}
}

func addEntry(topic string) []any { return []any{"XADD", topic, "*", "f", "v"} }

func postWatermark(topic, producer string) []any {
	return []any{"SET", "watermark:published:{" + topic + "}:" + producer, "{}"}
}

func readRequests(topic string) []any {
	return []any{"HGETALL", "republish:requested:" + topic + ":producer"}
}

func refused(err error) bool {
	return err != nil && (strings.Contains(err.Error(), "NOPERM") || strings.Contains(err.Error(), "can't access"))
}
