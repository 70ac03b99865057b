package stack

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/joho/godotenv"
)

// ErasureReport runs the command erasure-report of every service of the running stack for a user.
// The status is the highest exit code.
func ErasureReport(ctx context.Context, cfg Config, userID string) (status int, err error) {
	var facts Facts
	data, err := os.ReadFile(filepath.Join(cfg.Dir, factsName))
	if errors.Is(err, fs.ErrNotExist) {
		return 1, errors.New("make run is not running here")
	}
	if err == nil {
		err = json.Unmarshal(data, &facts)
	}
	if err != nil {
		return 1, fmt.Errorf("read %s: %w", factsName, err)
	}
	s := &stack{cfg: cfg, caller: parseEnvironment(cfg.Environ)}
	if s.dotenv, err = godotenv.Read(filepath.Join(cfg.Root, ".env")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 1, fmt.Errorf("read .env: %w", err)
	}
	bin := cfg.Bin
	if bin == "" {
		bin = filepath.Join(cfg.Dir, "bin")
	}
	for _, svc := range services {
		if svc.database == "" {
			continue
		}
		cmd := exec.CommandContext(ctx, filepath.Join(bin, svc.name), "erasure-report", userID) //nolint:gosec // The service checks the id.
		cmd.Dir, cmd.Env = cfg.Root, s.environmentOf(svc, facts.plan()).list()
		cmd.Stdout, cmd.Stderr = cfg.Out, os.Stderr
		err := cmd.Run()
		exit, failed := errors.AsType[*exec.ExitError](err)
		if err != nil && !failed {
			return 1, fmt.Errorf("run %s: %w", svc.name, err)
		}
		if failed {
			status = max(status, exit.ExitCode())
		}
	}
	return status, nil
}

// plan returns what the services of the running stack know about each other.
func (f Facts) plan() plan {
	p := plan{listen: map[string]addresses{}, databases: f.DatabaseURLs, redis: f.RedisURL, smtp: f.SMTPURL, public: f.GatewayURL, admin: f.Admin}
	for name, url := range f.ServiceURLs {
		p.listen[name] = addresses{http: strings.TrimPrefix(url, "http://")}
	}
	return p
}
