package main

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
	"github.com/headgate/headgate/pkg/token"
)

const (
	jwksPath  = "/.well-known/jwks.json"
	userPath  = "/api/v1/user/me"
	usersFew  = 1_000
	usersMany = 10_000
)

// edge is a service and the proxies in front of it.
type edge struct {
	b       *bench
	self    string // the bench's own binary
	gateway string // binary
	key     *ecdsa.PrivateKey
	kid     string
	few     string // file with the tokens of usersFew
	many    string
	service server
	running processes
}

// server is the service, or a proxy in front of it.
type server struct {
	process

	pid  int
	ops  string // URL of the internal listener, if it has one
	logs string // file, if there is one
}

// startEdge starts the service. The caller must stop edge.running, also after an error.
func (b *bench) startEdge(ctx context.Context) (*edge, error) {
	e := &edge{b: b, kid: "bench", few: filepath.Join(b.dir, "tokens-few"), many: filepath.Join(b.dir, "tokens-many")}
	var err error
	if e.self, err = os.Executable(); err != nil {
		return e, fmt.Errorf("find the bench: %w", err)
	}
	if e.gateway, err = b.build(ctx, "services/gateway"); err != nil {
		return e, err
	}
	if e.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return e, fmt.Errorf("make key: %w", err)
	}
	keys, err := token.MarshalJWKS(map[string]crypto.PublicKey{e.kid: e.key.Public()})
	if err != nil {
		return e, err
	}
	jwks := filepath.Join(b.dir, "jwks.json")
	if err := os.WriteFile(jwks, keys, 0o600); err != nil {
		return e, fmt.Errorf("write keys: %w", err)
	}
	if err := e.writeTokens(); err != nil {
		return e, err
	}
	e.service, err = e.start(ctx, server{}, func(addr string) *exec.Cmd {
		return exec.CommandContext(ctx, e.self, "upstream", "-addr", addr, "-jwks", jwks)
	})
	return e, err
}

// writeTokens writes a token for each user. The few users are among the many.
func (e *edge) writeTokens() error {
	all := make([]string, usersMany)
	for i := range all {
		var err error
		if all[i], err = e.token(uuid.NewString(), uuid.NewString()); err != nil {
			return err
		}
	}
	for name, n := range map[string]int{e.few: usersFew, e.many: usersMany} {
		if err := os.WriteFile(name, []byte(strings.Join(all[:n], "\n")), 0o600); err != nil {
			return fmt.Errorf("write tokens: %w", err)
		}
	}
	return nil
}

// token returns an access token that is valid for the whole run.
func (e *edge) token(user, session string) (string, error) {
	now := time.Now()
	return token.Sign(e.key, e.kid, token.Claims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer: "headgate", Audience: jwt.ClaimStrings{"headgate-api"}, Subject: user, ID: uuid.NewString(),
			IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(now.Add(token.MaxLifetime)),
		},
		SessionID: session, Role: token.RoleUser, AuthTime: jwt.NewNumericDate(now),
		Email: "somebody@example.com", Name: "Ada Lovelace",
	})
}

// start runs a program until the edge is stopped. Its standard error goes to s.logs, if that
// is set. It returns when the readiness check at s.ops, or the program itself, succeeds.
func (e *edge) start(ctx context.Context, s server, command func(addr string) *exec.Cmd) (server, error) {
	addr, err := freeAddress(ctx)
	if err != nil {
		return s, err
	}
	cmd := command(addr)
	// A killed nginx would leave its workers, so it gets SIGTERM also if the bench is stopped.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	if s.logs != "" {
		// Append, so that the file can be truncated while it is open.
		logs, err := os.OpenFile(s.logs, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			return s, fmt.Errorf("make log: %w", err)
		}
		defer logs.Close()
		cmd.Stderr = logs
	}
	running, err := child.Start(cmd, child.Signals{Orphan: syscall.SIGTERM})
	if err != nil {
		return s, err
	}
	s.url, s.pid = "http://"+addr, running.Pid()
	s.stop = func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		_ = running.Stop(ctx) // The process has ended, also after an error.
	}
	e.running = append(e.running, s.process)
	ready := s.url
	if s.ops != "" {
		ready = s.ops + "/readyz"
	}
	return s, awaitReady(ctx, ready, running, s.logs)
}

func awaitReady(ctx context.Context, url string, running *child.Process, logs string) error {
	return await(ctx, func() (bool, error) {
		select {
		case <-running.Done():
			output, _ := os.ReadFile(logs) // It may not exist.
			return false, errors.Join(fmt.Errorf("ended during start: %s\n%s", running.Reason(), output), running.Err())
		default:
		}
		res, err := http.Get(url)
		if err != nil {
			return false, nil //nolint:nilerr // The program does not listen yet.
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK, nil
	})
}

func freeAddress(ctx context.Context) (string, error) {
	port, err := localserver.FreePort(ctx)
	if err != nil {
		return "", fmt.Errorf("find a port: %w", err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port), nil
}

// startGateway runs the gateway as in production, with rate limits that are counted but
// never reached, and with additional settings. name is the name of its log.
func (e *edge) startGateway(ctx context.Context, name string, settings ...string) (server, error) {
	ops, err := freeAddress(ctx)
	if err != nil {
		return server{}, err
	}
	keys, err := e.b.publicKeys()
	if err != nil {
		return server{}, err
	}
	s := server{ops: "http://" + ops, logs: filepath.Join(e.b.dir, name+".log")}
	return e.start(ctx, s, func(addr string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, e.gateway)
		cmd.Env = append(os.Environ(), "ENV=production", "LOG_LEVEL=info", "LOG_FORMAT=json", "LOCAL_DIR="+e.b.dir, "EVENT_PUBLIC_KEYS="+keys,
			"HTTP_ADDR="+addr, "OPS_ADDR="+ops, "REDIS_URL="+e.b.redisURL, "JWKS_URL="+e.service.url+jwksPath,
			"AUTH_URL="+e.service.url, "USER_URL="+e.service.url, "EMAIL_URL="+e.service.url, "AUDIT_URL="+e.service.url,
			// All users share one address, so its limit is higher and its window shorter.
			"GENERAL_RATE_LIMIT=1000000/1m", "GENERAL_IP_RATE_LIMIT=1000000/10s", "MAX_CONNECTIONS_PER_IP=10000", "DRAIN_DELAY=0s")
		cmd.Env = append(cmd.Env, settings...)
		return cmd
	})
}

func (e *edge) startBare(ctx context.Context, settings ...string) (server, error) {
	return e.start(ctx, server{}, func(addr string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, e.self, "bare", "-addr", addr, "-to", e.service.url)
		cmd.Env = append(os.Environ(), settings...)
		return cmd
	})
}

var errNoNginx = errors.New("no nginx")

// With its defaults nginx would close connections early, or open one for each request.
const nginxConfig = `
daemon off;
pid %[1]s/nginx.pid;
error_log stderr;
worker_processes auto;
events { worker_connections 4096; }
http {
	access_log %[2]s;
	client_body_temp_path %[1]s/body;
	proxy_temp_path %[1]s/proxy;
	fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi;
	scgi_temp_path %[1]s/scgi;
	keepalive_requests 1000000000;
	upstream service {
		server %[3]s;
		keepalive 64;
		keepalive_requests 1000000000;
	}
	server {
		listen %[4]s;
		location / {
			proxy_pass http://service;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
		}
	}
}
`

// startNginx fails with errNoNginx if nginx is not installed.
func (e *edge) startNginx(ctx context.Context) (server, error) {
	binary, err := exec.LookPath("nginx")
	if err != nil {
		if binary, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return server{}, errNoNginx
		}
	}
	dir, err := os.MkdirTemp(e.b.dir, "nginx-")
	if err == nil {
		err = os.Chmod(dir, 0o711) // If the bench runs as root, the workers run as another user.
	}
	if err != nil {
		return server{}, fmt.Errorf("make folder: %w", err)
	}
	// nginx writes its access log to a file; the others log to standard error.
	logs, conf := filepath.Join(dir, "access.log"), filepath.Join(dir, "nginx.conf")
	var writeErr error
	s, err := e.start(ctx, server{}, func(addr string) *exec.Cmd {
		text := fmt.Sprintf(nginxConfig, dir, logs, strings.TrimPrefix(e.service.url, "http://"), addr)
		writeErr = os.WriteFile(conf, []byte(text), 0o600)
		return exec.CommandContext(ctx, binary, "-p", dir, "-c", conf)
	})
	s.logs = logs
	return s, errors.Join(writeErr, err)
}

// load sends the load o to s and returns the result.
func (e *edge) load(ctx context.Context, s server, o loadOptions) (loadResult, error) {
	o.to = strings.TrimPrefix(s.url, "http://")
	out, err := exec.CommandContext(ctx, e.self, append([]string{"load"}, o.args()...)...).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w: %s", err, exit.Stderr)
	}
	if err != nil {
		return loadResult{}, fmt.Errorf("run load: %w", err)
	}
	var r loadResult
	if err := json.Unmarshal(out, &r); err != nil {
		return loadResult{}, fmt.Errorf("decode the result of load: %w", err)
	}
	if s.logs != "" {
		// Writing the log is part of the measurement; keeping it would fill the disk.
		if err := os.Truncate(s.logs, 0); err != nil {
			return loadResult{}, fmt.Errorf("empty log: %w", err)
		}
	}
	return r, nil
}

// only returns an error if a response had another status.
func (r loadResult) only(status int) error {
	if r.Requests == 0 || r.Statuses[status] != r.Requests {
		return fmt.Errorf("statuses %v, want %d only", r.Statuses, status)
	}
	return nil
}
