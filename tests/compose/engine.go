package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// engine runs Docker and Docker Compose.
type engine struct {
	root    string   // the checkout
	dir     string   // the copy that is started
	compose []string // the command
	files   []string // options that name the compose files
	project string
}

// The first release of Compose that has what docker-compose.yml uses.
const minMajor, minMinor = 2, 24

var errNoCompose = fmt.Errorf(`the command docker compose, %d.%d or later, is missing: install docker-compose-plugin, or build it with
  tests/compose/build-compose.sh`, minMajor, minMinor)

// findEngine returns an error that says what is missing.
func findEngine(ctx context.Context, project string) (*engine, error) {
	root, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(root, "docker-compose.yml")); err != nil {
		return nil, errors.New("run it in the root of the repository: make compose-test")
	}
	e := &engine{root: root, dir: root, project: project}
	if _, err := exec.LookPath("docker"); err != nil {
		return nil, errors.New("the command docker is missing: install Docker Engine, or docker.io on Debian")
	}
	if out, err := e.command(ctx, "docker", "version", "--format", "{{.Server.Version}}"); err != nil {
		return nil, fmt.Errorf("no Docker engine responds: start it, or set DOCKER_HOST\n%s", strings.TrimSpace(out))
	}
	for _, command := range [][]string{{os.Getenv("COMPOSE_BIN")}, {"docker", "compose"}, {"docker-compose"}, {filepath.Join(root, ".local/bin/docker-compose")}} {
		if e.recent(ctx, command) {
			e.compose = command
			return e, nil
		}
	}
	return nil, errNoCompose
}

var version = regexp.MustCompile(`(\d+)\.(\d+)`)

func (e *engine) recent(ctx context.Context, command []string) bool {
	if command[0] == "" {
		return false
	}
	out, err := e.command(ctx, command[0], append(command[1:], "version", "--short")...)
	match := version.FindStringSubmatch(out)
	if err != nil || match == nil {
		return false
	}
	major, _ := strconv.Atoi(match[1]) // The pattern has digits only.
	minor, _ := strconv.Atoi(match[2])
	return major > minMajor || major == minMajor && minor >= minMinor
}

// command returns what a command writes, also in its error.
func (e *engine) command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = e.dir
	// Compose builds with the engine's BuildKit, without a plugin.
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1", "COMPOSE_BAKE=false", "COMPOSE_PROGRESS=plain", "COMMIT="+testCommit)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		text := out.String()
		return text, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, text[max(0, len(text)-3000):])
	}
	return out.String(), nil
}

const testCommit = "compose-test"

// dc runs docker compose.
func (e *engine) dc(ctx context.Context, args ...string) (string, error) {
	all := append(append(append([]string{}, e.compose[1:]...), "-p", e.project), e.files...)
	return e.command(ctx, e.compose[0], append(all, args...)...)
}

// docker runs docker about the container of a service.
func (e *engine) docker(ctx context.Context, service string, args ...string) (string, error) {
	id, err := e.dc(ctx, "ps", "--all", "--quiet", service)
	if err != nil {
		return "", err
	}
	out, err := e.command(ctx, "docker", append(args, strings.TrimSpace(id))...)
	return strings.TrimSpace(out), err
}

var pinned = regexp.MustCompile(`(?m)^(?:ARG [A-Z]+_IMAGE=| +image: )(\S+@sha256:[0-9a-f]+)$`)

// images returns the images that the files name.
func (e *engine) images() (images []string, err error) {
	for _, file := range []string{"docker-compose.yml", "deploy/Dockerfile", "deploy/postgres/Dockerfile", "deploy/redis/Dockerfile"} {
		text, err := os.ReadFile(filepath.Join(e.root, file))
		if err != nil {
			return nil, err
		}
		for _, match := range pinned.FindAllStringSubmatch(string(text), -1) {
			images = append(images, match[1])
		}
	}
	return images, nil
}

// chooseImages takes the images that the files name if the engine has or gets them. Where no
// registry can be reached, it takes stand-ins, which it builds if they are missing.
func (e *engine) chooseImages(ctx context.Context) error {
	e.files = []string{"-f", "docker-compose.yml"}
	images, err := e.images()
	if err != nil {
		return err
	}
	for _, image := range images {
		if _, err := e.command(ctx, "docker", "image", "inspect", image); err == nil {
			continue
		}
		if _, err := e.command(ctx, "docker", "pull", "--quiet", image); err == nil {
			continue
		}
		fmt.Printf("this engine cannot pull %s; using stand-ins, which are built once\n", image)
		e.files = append(e.files, "-f", "tests/compose/standins.yml")
		_, err := e.command(ctx, "bash", filepath.Join(e.root, "tests/compose/standins.sh"))
		return err
	}
	return nil
}
