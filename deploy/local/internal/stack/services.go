package stack

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/headgate/headgate/deploy/local/internal/console"
	"github.com/headgate/headgate/pkg/localserver/child"
)

// service is one of the programs of Headgate.
type service struct {
	name string
	// source is the folder of its main package, from the root of the repository.
	source string
	// database is the name of its database, or empty. Role and database are called
	// headgate_<database>.
	database string
	// variable is the gateway's variable for its URL; empty for the gateway itself.
	variable string
}

const (
	gateway      = "gateway"
	authService  = "auth-service"
	userService  = "user-service"
	emailService = "email-service"
	auditService = "audit-service"
)

// services are the programs of Headgate.
var services = []service{
	{name: gateway, source: "./services/gateway"},
	{name: authService, source: "./services/auth-service", database: "auth", variable: "AUTH_URL"},
	{name: userService, source: "./services/user-service", database: "user", variable: "USER_URL"},
	{name: emailService, source: "./services/email-service", database: "email", variable: "EMAIL_URL"},
	{name: auditService, source: "./services/audit-service", database: "audit", variable: "AUDIT_URL"},
}

// build compiles the services and returns the folder with their binaries.
func (s *stack) build(ctx context.Context) (string, error) {
	if s.cfg.Bin != "" {
		return s.cfg.Bin, nil
	}
	output, err := s.console.Program("build")
	if err != nil {
		return "", err
	}
	bin := filepath.Join(s.cfg.Dir, "bin")
	args := []string{"build", "-o", bin + string(filepath.Separator)}
	for _, svc := range services {
		args = append(args, svc.source)
	}
	s.logf("building the services")
	cmd := exec.Command("go", args...) //nolint:gosec,noctx // The folders are constants; run ends the command.
	cmd.Dir = s.cfg.Root
	cmd.Stdout, cmd.Stderr = output, output
	if err := run(ctx, cmd); err != nil {
		return "", fmt.Errorf("build the services in %s: %w%s", s.cfg.Root, err, lastLines(output))
	}
	return bin, nil
}

// run runs the command to its end. When ctx ends, it kills the command and its children.
func run(ctx context.Context, cmd *exec.Cmd) error {
	process, err := child.Start(cmd, child.Signals{})
	if err != nil {
		return err
	}
	select {
	case <-process.Done():
		return process.Err()
	case <-ctx.Done():
		process.Kill()
		return ctx.Err()
	}
}

// lastLines returns the last lines of a program's output, for an error.
func lastLines(p *console.Program) string {
	tail := p.Tail()
	if len(tail) == 0 {
		return ""
	}
	return "\n    " + strings.Join(tail, "\n    ")
}
