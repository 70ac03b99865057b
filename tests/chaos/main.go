// Chaos runs all of Headgate as real processes, breaks one part after another
// under load, and then checks that nothing that was acknowledged is lost and
// nothing happened twice. It knows the product by its HTTP interface, its
// tables and its streams, and no package of a service.
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

	"github.com/headgate/headgate/tests/internal/workspace"
)

// options say what a run does.
type options struct {
	seed     uint64
	short    bool
	lasts    time.Duration // of each fault, in place of its own time
	only     string        // a regular expression over the faults' names
	recovery time.Duration // the longest that a fault may take to be recovered from
	root     string        // the workspace
	out      io.Writer
}

// errUnsound says that the run has found something wrong.
var errUnsound = errors.New("the run is not sound")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	signal.Ignore(syscall.SIGPIPE) // Whoever reads the output may stop; what runs must be ended all the same.
	code := program(ctx)
	stop()
	os.Exit(code)
}

func program(ctx context.Context) int {
	opts := options{out: os.Stdout}
	flag.Uint64Var(&opts.seed, "seed", rand.Uint64N(1_000_000), "decides the order of the faults and what the clients do")
	flag.BoolVar(&opts.short, "short", false, "a few faults only, for a test")
	flag.StringVar(&opts.only, "only", "", "only the faults whose name matches this regular expression")
	flag.DurationVar(&opts.lasts, "lasts", 0, "how long each fault lasts, in place of its own time: -only 'mail server down' -lasts 10m")
	flag.DurationVar(&opts.recovery, "recovery", time.Minute, "how long recovering from a fault may take")
	flag.Parse()
	root, err := workspace.Root()
	if err == nil {
		opts.root = root
		err = runAll(ctx, opts)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "chaos:", err)
		return 1
	}
	return 0
}

// runAll does one run. Nothing that it started is left when it returns.
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
	// Postgres runs as another user when we are root, and must reach its folder.
	if err := os.Chmod(dir, 0o711); err != nil {
		return fmt.Errorf("open folder: %w", err)
	}
	fmt.Fprintf(opts.out, "seed %d, %d faults, folder %s\n", opts.seed, len(chosen), dir)
	r, err := newRun(ctx, opts, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.close()) }()
	r.say("everything runs after %s", time.Since(began).Round(100*time.Millisecond))
	if err := r.storm(ctx, chosen); err != nil {
		return err
	}
	verdict, err := r.judge(ctx)
	if err != nil {
		return err
	}
	verdict.took = time.Since(began)
	return r.report(verdict)
}
