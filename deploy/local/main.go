// Headgate's launcher runs the whole system on one machine without containers.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/headgate/headgate/deploy/local/internal/stack"
)

const usage = `Usage:
  local [flags] up                     run Headgate: Postgres, Redis, a mailbox and the five services
  local [flags] reset                  delete all data
  local [flags] erasure-report <id>    print what the services of the running stack have about a user
  local servers -- <command> [args]    run the command with new Postgres and Redis servers, whose
                                       URLs are in TEST_DATABASE_URL and TEST_REDIS_URL

Flags:
`

func main() {
	status, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "headgate:", err)
		status = max(status, 1)
	}
	os.Exit(status)
}

func run(args []string) (status int, err error) {
	flags := flag.NewFlagSet("local", flag.ContinueOnError)
	cfg := stack.Config{Environ: os.Environ(), Out: os.Stdout}
	flags.StringVar(&cfg.Dir, "dir", "", "data folder (default .local in the repository)")
	flags.StringVar(&cfg.Bin, "bin", "", "folder with the binaries of the services; they are built if empty")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), usage)
		flags.PrintDefaults()
	}
	command, rest, err := parse(flags, args)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 2, err
	}

	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	if command == "servers" {
		return stack.Servers(signals, os.Environ(), rest)
	}
	if err := cfg.Locate(); err != nil {
		return 1, err
	}
	stop, force := stopOn(signals)
	if command == "erasure-report" {
		return stack.ErasureReport(stop, cfg, rest[0])
	}
	if command == "reset" {
		return 0, stack.Reset(stop, cfg.Dir, os.Stdout)
	}
	return 0, stack.Up(stop, force, cfg)
}

// parse allows flags before and after the command.
func parse(flags *flag.FlagSet, args []string) (command string, rest []string, err error) {
	if err := flags.Parse(args); err != nil {
		return "", nil, err
	}
	command = flags.Arg(0)
	if flags.NArg() > 0 {
		if err := flags.Parse(flags.Args()[1:]); err != nil {
			return "", nil, err
		}
	}
	rest = flags.Args()
	arguments := map[string]bool{"up": len(rest) == 0, "reset": len(rest) == 0, "servers": len(rest) > 0, "erasure-report": len(rest) == 1}
	if !arguments[command] {
		flags.Usage()
		return "", nil, errors.New("a command is required: up, reset, erasure-report <id>, or servers -- <command>")
	}
	return command, rest, nil
}

// stopOn returns a context that ends with the first signal, and one that ends with a second
// Ctrl-C. (A second SIGTERM is often the first one, sent to the process group as well.)
func stopOn(signals <-chan os.Signal) (stop, force context.Context) {
	stop, gently := context.WithCancel(context.Background())
	force, now := context.WithCancel(context.Background())
	go func() {
		<-signals
		gently()
		for sig := range signals {
			if sig == os.Interrupt {
				now()
			}
		}
	}()
	return stop, force
}
