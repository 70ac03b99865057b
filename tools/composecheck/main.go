// Composecheck reads a compose file as `docker compose config` does and checks
// what the product promises of it. It needs no container engine.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) != 2 {
		return errors.New("usage: composecheck COMPOSE-FILE ENV-EXAMPLE")
	}
	environment, err := example(args[1])
	if err != nil {
		return err
	}
	// Nothing that is asked for may be missing from the example.
	if _, err := load(ctx, args[0], nil); err == nil {
		return errors.New("the file loads without secrets: a deployment could start with empty ones")
	}
	project, err := load(ctx, args[0], environment)
	if err != nil {
		return fmt.Errorf("load %s: %w", args[0], err)
	}
	return check(project)
}

func load(ctx context.Context, file string, environment []string) (*types.Project, error) {
	directory, err := filepath.Abs(filepath.Dir(file))
	if err != nil {
		return nil, err
	}
	options, err := cli.NewProjectOptions([]string{file}, cli.WithWorkingDirectory(directory), cli.WithEnv(environment))
	if err != nil {
		return nil, err
	}
	return options.LoadProject(ctx)
}

// example returns the variables of the example with a value for each secret.
func example(file string) ([]string, error) {
	text, err := os.ReadFile(file) //nolint:gosec // The caller names it.
	if err != nil {
		return nil, err
	}
	var environment []string
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		if value == "" {
			value = "example-of-" + strings.ToLower(name)
		}
		environment = append(environment, name+"="+strings.Trim(value, `"`))
	}
	return environment, nil
}

func check(project *types.Project) error {
	var faults []error
	fault := func(service, text string) { faults = append(faults, fmt.Errorf("%s: %s", service, text)) }
	for name, s := range project.Services {
		if s.ContainerName != "" {
			fault(name, "container_name keeps it from being scaled")
		}
		if len(s.Ports) > 0 && name != "gateway" {
			fault(name, "only the gateway publishes a port")
		}
		if s.HealthCheck == nil || len(s.HealthCheck.Test) == 0 {
			fault(name, "no healthcheck")
		}
		for on, d := range s.DependsOn {
			if d.Condition != types.ServiceConditionHealthy {
				fault(name, "does not wait until "+on+" is healthy")
			}
		}
		if s.Build == nil {
			continue
		}
		if !s.ReadOnly || len(s.CapDrop) == 0 || len(s.SecurityOpt) == 0 {
			fault(name, "is not confined")
		}
		if len(s.DependsOn) == 0 {
			fault(name, "waits for nothing")
		}
		if service := s.Build.Args["SERVICE"]; service == nil || *service != name {
			fault(name, "builds another service")
		}
	}
	if len(project.Services["gateway"].Ports) != 1 {
		fault("gateway", "publishes no port")
	}
	return errors.Join(faults...)
}
