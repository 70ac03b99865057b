package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
)

// Config is a service's configuration: a struct that embeds Common.
type Config interface{ CommonConfig() Common }

// Command is a subcommand of a service's program, such as "admin create". It gets
// the arguments after its name.
type Command[C Config] struct {
	Name  string
	Usage string
	Run   func(ctx context.Context, cfg C, args []string) error
	// Bare replaces Run in a command that needs no configuration.
	Bare func(ctx context.Context, args []string) error
}

// Main is a service's func main. It loads and validates the configuration, opens
// the internal listener, and calls run with a context that SIGINT or SIGTERM
// cancels; a second signal kills the process. The exit status is 0 after an orderly
// stop, 1 after a failure and 2 after a usage error. A command can choose another one
// with WithExitCode.
//
// Every service has three more commands: config prints the table of its environment
// variables, healthcheck asks the running service whether it can serve requests, for
// containers, and version prints the version.
func Main[C Config](name string, run func(ctx context.Context, s *Service, cfg C) error, commands ...Command[C]) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	err := execute(ctx, name, run, commands)
	stop()
	if err == nil {
		return
	}
	if usage, ok := errors.AsType[usageError](err); ok {
		fmt.Fprintln(stderr, usage)
		os.Exit(2)
	}
	if failed, ok := errors.AsType[commandError](err); ok {
		fmt.Fprintf(stderr, "%s: %v\n", name, failed.error)
		if coded, ok := errors.AsType[codedError](err); ok {
			os.Exit(coded.code)
		}
		os.Exit(1)
	}
	slog.ErrorContext(ctx, "service stopped", "error", err.Error())
	os.Exit(1)
}

// commandError is the error of a command. It is printed for a person, not logged.
type commandError struct{ error }

func (e commandError) Unwrap() error { return e.error }

// WithExitCode returns err for a command whose exit code tells scripts more than that
// it failed.
func WithExitCode(code int, err error) error { return codedError{err, code} }

type codedError struct {
	error
	code int
}

func (e codedError) Unwrap() error { return e.error }

// failed returns err as that of a command, nil if it is nil.
func failed(err error) error {
	if err == nil {
		return nil
	}
	return commandError{err}
}

type usageError string

func (u usageError) Error() string { return string(u) }

func execute[C Config](ctx context.Context, name string, run func(context.Context, *Service, C) error, commands []Command[C]) error {
	args := os.Args[1:]
	var cfg C
	if len(args) > 0 {
		switch args[0] {
		case "config":
			return Table(os.Stdout, cfg)
		case "version":
			_, err := fmt.Fprintln(os.Stdout, Version())
			return err
		}
	}
	slog.SetDefault(NewLogger(stderr, name, Common{LogFormat: "auto"}))
	command, rest, err := findCommand(name, commands, args)
	if err != nil {
		return err
	}
	if command.Bare != nil {
		return failed(command.Bare(ctx, rest))
	}
	if err := Load(&cfg); err != nil {
		return fmt.Errorf("check config: %w", err)
	}
	common := cfg.CommonConfig()
	if command.Run != nil {
		slog.SetDefault(NewLogger(stderr, name, common))
		return failed(command.Run(ctx, cfg, rest))
	}

	log, flush := newBufferedLogger(stderr, name, common)
	defer flush()
	slog.SetDefault(log)
	s := New(name, common, log)
	ops, err := s.listenOps(ctx)
	if err != nil {
		return err
	}
	defer ops()
	return run(ctx, s, cfg)
}

// findCommand returns the command that args name, and the arguments that follow.
// Without arguments it returns the zero Command: the program serves.
func findCommand[C Config](name string, commands []Command[C], args []string) (Command[C], []string, error) {
	if len(args) == 0 {
		return Command[C]{}, nil, nil
	}
	if args[0] == "healthcheck" {
		return Command[C]{Run: func(ctx context.Context, cfg C, _ []string) error { return healthcheck(ctx, cfg.CommonConfig()) }}, nil, nil
	}
	line := strings.Join(args, " ")
	for _, c := range commands {
		if line == c.Name || strings.HasPrefix(line, c.Name+" ") {
			return c, args[len(strings.Fields(c.Name)):], nil
		}
	}
	return Command[C]{}, nil, usage(name, args[0], commands)
}

// usage lists the commands, for a program that was called with another one.
func usage[C Config](name, unknown string, commands []Command[C]) usageError {
	var b strings.Builder
	if !strings.HasPrefix(unknown, "-") && unknown != "help" {
		fmt.Fprintf(&b, "unknown command %q\n", unknown)
	}
	fmt.Fprintf(&b, "usage: %s [command]\n\nWithout a command, the service runs. Commands:\n", name)
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	for _, c := range commands {
		fmt.Fprintf(w, "  %s\t%s\n", c.Name, c.Usage)
	}
	fmt.Fprint(w, "  config\tprint the environment variables\n  healthcheck\tcheck whether the running service can serve requests\n  version\tprint the version")
	_ = w.Flush() // A strings.Builder takes everything.
	return usageError(b.String())
}

// listenOps starts the internal listener. It serves before the dependencies are up,
// so that /livez tells a waiting service from a dead one.
func (s *Service) listenOps(ctx context.Context) (stop func(), err error) {
	var lc net.ListenConfig
	listener, err := lc.Listen(ctx, "tcp", s.cfg.OpsAddr)
	if err != nil {
		return nil, fmt.Errorf("listen on OPS_ADDR: %w", err)
	}
	server := &http.Server{Handler: s.opsHandler(), ReadHeaderTimeout: 5 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			s.Log.ErrorContext(ctx, "internal listener failed", "error", err.Error())
		}
	}()
	return func() {
		server.Close()
		<-done
	}, nil
}

func healthcheck(ctx context.Context, cfg Common) error {
	host, port, err := net.SplitHostPort(cfg.OpsAddr)
	if err != nil {
		return fmt.Errorf("read OPS_ADDR: %w", err)
	}
	if host == "" || net.ParseIP(host).IsUnspecified() {
		host = "localhost"
	}
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+requestsPath, http.NoBody)
	if err != nil {
		return fmt.Errorf("check readiness: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("check readiness: %w", err)
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("not ready: %s", res.Status)
	}
	return nil
}
