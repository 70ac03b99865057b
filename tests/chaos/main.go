// Chaos runs all of Headgate as real processes, injects one fault after another under load,
// and then checks that nothing acknowledged was lost and nothing was done twice. It uses the
// HTTP API, the tables and the streams, and no package of a service.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/tests/internal/workspace"
)

// options say what a run does.
type options struct {
	seed     uint64
	short    bool
	lasts    time.Duration // duration of each fault; 0 is the fault's own
	only     string        // regular expression for the names of faults
	recovery time.Duration // maximum time to recover from a fault
	root     string        // the workspace
	out      io.Writer
}

// errFailed says that the run has found a violation, or that a fault did not work.
var errFailed = errors.New("the run failed")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // If the reader of the output is gone, the processes must still be stopped.
	redis.SetLogger(discardLog{})
	code := program(ctx)
	stop()
	os.Exit(code)
}

func program(ctx context.Context) int {
	opts := options{out: os.Stdout}
	flag.Uint64Var(&opts.seed, "seed", rand.Uint64N(1_000_000), "seed for the order of the faults and the actions of the clients")
	flag.BoolVar(&opts.short, "short", false, "run a few faults only, as make test does")
	flag.StringVar(&opts.only, "only", "", "run only the faults whose name matches this regular expression")
	flag.DurationVar(&opts.lasts, "lasts", 0, "duration of each fault, instead of its own, for example -only 'mail server down' -lasts 10m")
	flag.DurationVar(&opts.recovery, "recovery", time.Minute, "maximum time to recover from a fault")
	lasts := flag.Duration("for", 0, "do one run after another with new seeds for so long, for example 1h")
	flag.Parse()
	root, err := workspace.Root()
	if err == nil {
		opts.root = root
		if *lasts > 0 {
			err = rounds(ctx, opts, *lasts)
		} else {
			err = runAll(ctx, opts)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	return 0
}

// runAll does one run. When it returns, everything that it started has ended.
func runAll(ctx context.Context, opts options) (err error) {
	began := time.Now()
	chosen, err := schedule(opts)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "headgate-chaos-")
	if err != nil {
		return fmt.Errorf("make folder: %w", err)
	}
	// If chaos runs as root, Postgres runs as another user, who must reach its folder.
	if err := os.Chmod(dir, 0o711); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	fmt.Fprintf(opts.out, "seed %d, %d faults, folder %s\n", opts.seed, len(chosen), dir)
	var n needs
	for _, f := range chosen {
		n = n.and(f.needs)
	}
	r, err := newRun(ctx, opts, n, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	r.logf("ready after %s", time.Since(began).Round(100*time.Millisecond))
	if err := r.runFaults(ctx, chosen); err != nil {
		return err
	}
	verdict, err := r.verify(ctx)
	if err != nil {
		return err
	}
	verdict.took = time.Since(began)
	return r.report(verdict)
}
