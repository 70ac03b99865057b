package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"sync"
	"time"

	"github.com/headgate/headgate/pkg/token"
)

// parts are programs in the bench's own binary that it starts as separate processes, so
// that the CPU time of each is counted separately.
var parts = map[string]func(ctx context.Context, args []string) error{
	"upstream": runUpstream,
	"bare":     runBare,
	"load":     runLoad,
	"constant": runConstant,
}

// upstream stands for all services. It costs as little as possible: it parses only the
// first line of a request.
type upstream struct{ keys, rest []byte }

// runUpstream is the program that answers every request with 200. It also has the keys of
// auth-service and an empty list of revocations, which the gateway reads.
func runUpstream(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("upstream", flag.ContinueOnError)
	addr := set.String("addr", "", "address to listen on")
	jwks := set.String("jwks", "", "file with the set of keys")
	if err := set.Parse(args); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	keys, err := os.ReadFile(*jwks)
	if err != nil {
		return fmt.Errorf("read keys: %w", err)
	}
	u := &upstream{keys: reply(keys), rest: reply([]byte(`{"data":{"id":"01900000-0000-7000-8000-000000000001","name":"Ada","locale":"en"}}`))}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", *addr)
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	for {
		c, err := listener.Accept()
		if ctx.Err() != nil {
			return nil // The end of ctx closed the listener.
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go u.serve(c) // It ends with the connection or the process.
	}
}

// reply returns the bytes of a response.
func reply(body []byte) []byte {
	return fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
}

// serve answers requests without a body; another method than GET ends the connection.
func (u *upstream) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadSlice('\n')
		if err != nil || !bytes.HasPrefix(line, []byte("GET ")) {
			return
		}
		answer := u.answer(line)
		for len(line) > len("\r\n") {
			if line, err = r.ReadSlice('\n'); err != nil {
				return
			}
		}
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func (u *upstream) answer(first []byte) []byte {
	switch {
	case bytes.HasPrefix(first, []byte("GET "+jwksPath)):
		return u.keys
	case bytes.HasPrefix(first, []byte("GET "+token.RevocationsPath)):
		return reply(fmt.Appendf(nil, `{"data":{"asOf":%q,"revocations":[]}}`, time.Now().UTC().Format(time.RFC3339Nano)))
	}
	return u.rest
}

// runBare is the proxy that the gateway is compared with: a tuned ReverseProxy of the
// standard library that checks, counts and logs nothing.
func runBare(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("bare", flag.ContinueOnError)
	addr := set.String("addr", "", "address to listen on")
	to := set.String("to", "", "URL of the service behind it")
	if err := set.Parse(args); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	target, err := url.Parse(*to)
	if err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	server := &http.Server{
		Addr: *addr,
		Handler: &httputil.ReverseProxy{
			Rewrite:    func(r *httputil.ProxyRequest) { r.SetURL(target) },
			Transport:  &http.Transport{MaxIdleConnsPerHost: 1024, DisableCompression: true, Protocols: &protocols},
			BufferPool: &bufferPool{},
			ErrorLog:   quiet,
		},
		// The same as in pkg/web.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       20 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       60 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          quiet,
	}
	defer context.AfterFunc(ctx, func() { server.Close() })()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}

type bufferPool struct{ pool sync.Pool }

const bufferSize = 32 << 10

// Get implements httputil.BufferPool.
func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[bufferSize]byte); ok {
		return b[:]
	}
	return make([]byte, bufferSize)
}

// Put implements httputil.BufferPool.
func (p *bufferPool) Put(b []byte) { p.pool.Put((*[bufferSize]byte)(b)) }
