// Package redisserver runs Redis as the deployment does: with its start script, its users and
// its append-only file.
package redisserver

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/localserver/child"
)

// Operator is the user that may do everything.
const Operator = "operator"

// Users are the users of deploy/redis/users.acl that have a password.
var Users = []string{"auth-service", "user-service", "email-service", "audit-service", "gateway", Operator}

// Config says how a server runs.
type Config struct {
	Root      string // the workspace
	Dir       string // for the data and the users; kept when the server ends
	Port      int
	Passwords map[string]string // of each of Users
	Output    io.Writer
}

// Variable returns the name of a user in the environment of the start script.
func Variable(user string) string {
	return "REDIS_" + strings.ToUpper(strings.TrimSuffix(user, "-service")) + "_PASSWORD"
}

// ACLFile is the file with the users and the hashes of their passwords.
func (c Config) ACLFile() string { return filepath.Join(c.Dir, "users.acl") }

// Address returns the host and the port.
func (c Config) Address() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Port)) }

// URL returns the address for a user.
func (c Config) URL(user string) string { return c.URLAt(user, c.Address()) }

// URLAt returns the address for a user who reaches the server at another host and port.
func (c Config) URLAt(user, address string) string {
	u := url.URL{Scheme: "redis", Host: address, Path: "/0", User: url.UserPassword(user, c.Passwords[user])}
	return u.String()
}

// Start starts the server and returns when it has loaded its data. If it fails, the server has
// ended.
func Start(ctx context.Context, c Config) (*child.Process, error) {
	data := filepath.Join(c.Dir, "data")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("create folder: %w", err)
	}
	script := filepath.Join(c.Root, "deploy/redis/start.sh")
	cmd := exec.Command("sh", script, "--port", strconv.Itoa(c.Port), "--bind", "127.0.0.1", "--dir", data, "--tcp-backlog", "128")
	cmd.Env = append(os.Environ(), "ACL_FILE="+c.ACLFile())
	for _, user := range Users {
		cmd.Env = append(cmd.Env, Variable(user)+"="+c.Passwords[user])
	}
	cmd.Stdout, cmd.Stderr = c.Output, c.Output
	process, err := child.Start(cmd, child.Signals{})
	if err != nil {
		return nil, fmt.Errorf("start redis: %w", err)
	}
	if err := c.await(ctx, process); err != nil {
		process.Kill()
		return nil, err
	}
	return process, nil
}

const loadTimeout = 30 * time.Second

// await waits until the server answers.
func (c Config) await(ctx context.Context, process *child.Process) error {
	options, err := redis.ParseURL(c.URL(Operator))
	if err != nil {
		return fmt.Errorf("read the address of redis: %w", err)
	}
	options.MaxRetries = -1
	client := redis.NewClient(options)
	defer client.Close()
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := client.Ping(ctx).Err()
		if err == nil {
			return nil
		}
		select {
		case <-process.Done():
			return fmt.Errorf("redis ended: %s", process.Reason())
		case <-ctx.Done():
			return fmt.Errorf("wait until redis answers: %w (%w)", ctx.Err(), err)
		case <-tick.C:
		}
	}
}
