// Standin is the mailbox of `make run` at the ports of Mailpit, for tests/compose/standins.sh.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/headgate/headgate/deploy/local/internal/mailbox"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 1 && args[0] == "readyz" {
		return ready(ctx)
	}
	if len(args) > 0 {
		return errors.New("usage: mailpit [readyz]")
	}
	var listen net.ListenConfig
	mail, err := listen.Listen(ctx, "tcp", ":1025")
	if err != nil {
		return err
	}
	web, err := listen.Listen(ctx, "tcp", ":8025")
	if err != nil {
		return err
	}
	return mailbox.New().Serve(ctx, mail, web)
}

func ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1:8025/readyz", http.NoBody)
	if err != nil {
		return err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return errors.New(res.Status)
	}
	return nil
}
