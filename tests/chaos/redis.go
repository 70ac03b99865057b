package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
)

// operator is the Redis user that may do everything.
const operator = "operator"

// redisUsers are the users of deploy/redis/users.acl that have a password.
var redisUsers = []string{authService, userService, emailService, auditService, gateway, operator}

// deployedRedis is Redis as the deployment runs it: with its start script, its users and
// its append-only file.
type deployedRedis struct {
	script    string
	passwords map[string]string // by user
}

func newDeployedRedis(root string) *deployedRedis {
	d := &deployedRedis{script: filepath.Join(root, "deploy/redis/start.sh"), passwords: map[string]string{}}
	for _, user := range redisUsers {
		d.passwords[user] = rand.Text()
	}
	return d
}

// url returns the address for a user.
func (d *deployedRedis) url(user, address string) string {
	u := url.URL{Scheme: "redis", Host: address, Path: "/0", User: url.UserPassword(user, d.passwords[user])}
	return u.String()
}

// launch starts the server and returns when it has loaded its data.
func (d *deployedRedis) launch(ctx context.Context, opts localserver.Options) (*localserver.Server, error) {
	port := opts.Port
	if port == 0 {
		var err error
		if port, err = localserver.FreePort(ctx); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(opts.Dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	cmd := exec.Command("sh", d.script, "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--dir", data, "--tcp-backlog", "128")
	cmd.Env = append(os.Environ(), "ACL_FILE="+filepath.Join(opts.Dir, "users.acl"))
	for user, password := range d.passwords {
		name := strings.ToUpper(strings.TrimSuffix(user, "-service"))
		cmd.Env = append(cmd.Env, "REDIS_"+name+"_PASSWORD="+password)
	}
	cmd.Stdout, cmd.Stderr = opts.Output, opts.Output
	process, err := child.Start(cmd, child.Signals{})
	if err != nil {
		return nil, err
	}
	server := &localserver.Server{Process: process, URL: d.url(operator, loopback(port)), Port: port}
	if err := ping(ctx, server); err != nil {
		process.Kill()
		return nil, err
	}
	return server, nil
}

// ping waits until the server answers.
func ping(ctx context.Context, server *localserver.Server) error {
	options, err := redis.ParseURL(server.URL)
	if err != nil {
		return fmt.Errorf("read the address of redis: %w", err)
	}
	options.MaxRetries = -1
	client := redis.NewClient(options)
	defer client.Close()
	return eventually(ctx, 30*time.Second, "redis answers", func() (bool, error) {
		select {
		case <-server.Done():
			return false, fmt.Errorf("redis ended: %s", server.Reason())
		default:
			return client.Ping(ctx).Err() == nil, nil
		}
	})
}
