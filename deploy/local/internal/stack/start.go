package stack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/headgate/headgate/deploy/local/internal/supervisor"
	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/localserver/child"
)

type startServer = func(context.Context, localserver.Options) (*localserver.Server, error)

// startServers starts Postgres and Redis, unless the caller provides them, and sets their
// URLs in p.
func (s *stack) startServers(ctx context.Context, p *plan) error {
	databaseURL, redisURL := s.caller["DATABASE_URL"], s.caller["REDIS_URL"]
	if err := checkRedis(ctx, redisURL); err != nil {
		return err
	}
	private := map[string]startServer{}
	if databaseURL == "" {
		private[localserver.Postgres] = localserver.StartPostgres
	}
	if redisURL == "" {
		private[localserver.Redis] = localserver.StartRedis
	}
	urls, err := s.startPrivate(ctx, private)
	if err != nil {
		return err
	}
	if url := urls[localserver.Postgres]; url != "" {
		databaseURL = url
	}
	if url := urls[localserver.Redis]; url != "" {
		redisURL = url
	}
	p.redis = redisURL
	p.databases, err = s.databases(ctx, databaseURL)
	return err
}

// checkRedis reports a wrong REDIS_URL before five services do.
func checkRedis(ctx context.Context, redisURL string) error {
	if redisURL == "" {
		return nil
	}
	u, err := url.Parse(redisURL)
	if err != nil || u.Hostname() == "" && u.Scheme != "unix" {
		return errors.New("REDIS_URL: want redis://user:password@host:port/number") // The error of Parse contains the password.
	}
	network, address := "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "6379"))
	if u.Scheme == "unix" {
		network, address = "unix", u.Path
	}
	conn, err := (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, address)
	if err != nil {
		return fmt.Errorf("REDIS_URL: %w", err)
	}
	return conn.Close()
}

// startPrivate installs missing servers, starts all of them and returns their URLs by name.
func (s *stack) startPrivate(ctx context.Context, private map[string]startServer) (map[string]string, error) {
	if len(private) == 0 {
		return nil, nil
	}
	bin := s.caller["HEADGATE_PG_BIN"]
	names := slices.Sorted(maps.Keys(private))
	if missing := localserver.Missing(bin, names...); len(missing) > 0 {
		if err := localserver.Install(ctx, s.log, missing...); err != nil {
			return nil, fmt.Errorf("install: %w", err)
		}
	}
	var mu sync.Mutex
	urls := map[string]string{}
	var units []supervisor.Unit
	for name, start := range private {
		output, err := s.console.Quiet(name)
		if err != nil {
			return nil, err
		}
		opts := localserver.Options{Dir: filepath.Join(s.cfg.Dir, name), Durable: true, Bin: bin, Log: s.log, Output: output}
		units = append(units, supervisor.Unit{Name: name, Tail: output.Tail, Start: func(ctx context.Context) (supervisor.Process, error) {
			server, err := start(ctx, opts)
			if err != nil {
				return nil, err
			}
			opts.Port = server.Port // After a restart the clients use the same port.
			mu.Lock()
			defer mu.Unlock()
			urls[name] = server.URL
			return server, nil
		}})
	}
	group := supervisor.Start(ctx, units, supervisor.Options{Log: s.log, Changed: s.changed})
	s.mu.Lock()
	s.servers = group
	s.mu.Unlock()
	if err := group.Ready(ctx); err != nil {
		return nil, err
	}
	mu.Lock()
	defer mu.Unlock()
	return maps.Clone(urls), nil
}

// startServices starts the services and waits until all are ready.
func (s *stack) startServices(ctx context.Context, bin string, gatewayPort int, p plan) error {
	var ports reservedPorts
	for _, svc := range services {
		var a addresses
		var err error
		if a.ops, err = ports.port(ctx); err != nil {
			return errors.Join(err, ports.release())
		}
		if svc.name == gateway {
			a.http = net.JoinHostPort(s.gatewayHost(), strconv.Itoa(gatewayPort))
		} else if a.http, err = ports.port(ctx); err != nil {
			return errors.Join(err, ports.release())
		}
		p.listen[svc.name] = a
	}
	var units []supervisor.Unit
	for _, svc := range services {
		unit, err := s.unit(svc, filepath.Join(bin, svc.name), p)
		if err != nil {
			return errors.Join(err, ports.release())
		}
		units = append(units, unit)
	}
	if err := ports.release(); err != nil {
		return fmt.Errorf("release ports: %w", err)
	}
	group := supervisor.Start(ctx, units, supervisor.Options{Log: s.log, Changed: s.changed})
	s.mu.Lock()
	s.services = group
	s.mu.Unlock()
	return group.Ready(ctx)
}

func (s *stack) gatewayHost() string {
	if host := s.setting("GATEWAY_HOST"); host != "" {
		return host
	}
	return loopback
}

// reachable returns the host by which a local client reaches a listener on host. For this
// machine it is a name, because browsers bind passkeys to names only.
func reachable(host string) string {
	if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.IsLoopback()) {
		return "localhost"
	}
	return host
}

func (s *stack) unit(svc service, binary string, p plan) (supervisor.Unit, error) {
	output, err := s.console.Program(svc.name)
	if err != nil {
		return supervisor.Unit{}, err
	}
	env := s.environmentOf(svc, p).list()
	return supervisor.Unit{
		Name: svc.name,
		Tail: output.Tail,
		Start: func(context.Context) (supervisor.Process, error) {
			cmd := exec.Command(binary) //nolint:noctx // The supervisor ends it.
			cmd.Dir, cmd.Env = s.cfg.Root, env
			cmd.Stdout, cmd.Stderr = output, output
			process, err := child.Start(cmd, child.Signals{})
			if err != nil {
				return nil, err
			}
			return process, nil
		},
		Ready: func(ctx context.Context) error { return ready(ctx, svc, p) },
	}, nil
}

// ready checks the readiness of a service. The gateway is ready when it has seen that all
// services are, so that the first request of any kind succeeds.
func ready(ctx context.Context, svc service, p plan) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := fetch(ctx, "http://"+p.listen[svc.name].ops+"/readyz"); err != nil || svc.name != gateway {
		return err
	}
	body, err := fetch(ctx, p.public+"/health")
	if err != nil {
		return err
	}
	var health struct {
		Data struct {
			Status string `json:"status"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &health); err != nil {
		return fmt.Errorf("decode /health: %w", err)
	}
	if health.Data.Status != "ok" {
		return fmt.Errorf("/health: %s", body)
	}
	return nil
}

// fetch returns the body of a response with status 200.
func fetch(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, 4<<10))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", res.Status, body)
	}
	return body, nil
}
