package main

import (
	"bufio"
	"bytes"
	"context"
	crand "crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// loadOptions describe a load: what to request, how often and for how long.
type loadOptions struct {
	to          string // host:port
	path        string
	tokens      string // file with one token a line; no token if empty
	connections int
	lasts       time.Duration
	rate        float64 // requests a second; as many as possible if 0
	forged      float64 // share of requests whose token has a forged signature
}

func (o *loadOptions) flags() *flag.FlagSet {
	set := flag.NewFlagSet("load", flag.ContinueOnError)
	set.StringVar(&o.to, "to", "", "host:port of the server")
	set.StringVar(&o.path, "path", "/", "path to request")
	set.StringVar(&o.tokens, "tokens", "", "file with one access token a line")
	set.IntVar(&o.connections, "connections", 32, "number of connections")
	set.DurationVar(&o.lasts, "lasts", time.Second, "duration of the load")
	set.Float64Var(&o.rate, "rate", 0, "requests a second; 0 is as many as possible")
	set.Float64Var(&o.forged, "forged", 0, "share of requests whose token is forged")
	return set
}

// args are the options as command-line arguments, for flags.
func (o *loadOptions) args() []string {
	return []string{
		"-to", o.to, "-path", o.path, "-tokens", o.tokens, "-connections", strconv.Itoa(o.connections),
		"-lasts", o.lasts.String(), "-rate", fmt.Sprint(o.rate), "-forged", fmt.Sprint(o.forged),
	}
}

// loadResult is the output of a load.
type loadResult struct {
	Requests int           `json:"requests"`
	Seconds  float64       `json:"seconds"`
	Statuses map[int]int   `json:"statuses"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Max      time.Duration `json:"max"`
}

// runLoad is the load generator. It is a separate process, so that its CPU time is not
// counted for the server.
func runLoad(ctx context.Context, args []string) error {
	l := &load{}
	if err := l.flags().Parse(args); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	result, err := l.run(ctx)
	if err != nil {
		return fmt.Errorf("load %s: %w", l.to, err)
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

type load struct {
	loadOptions

	requests [][]byte
	due      chan time.Time // when requests are to be sent; nil if there is no rate
	end      time.Time
}

// seen is the result of one connection.
type seen struct {
	took     []time.Duration
	statuses map[int]int
}

func (l *load) run(ctx context.Context) (loadResult, error) {
	if err := l.prepare(); err != nil {
		return loadResult{}, err
	}
	// All connections are open before the first request, so that all requests have the same
	// load beside them.
	wires := make([]*wire, l.connections)
	for i := range wires {
		w, err := dial(ctx, l.to, l.lasts+30*time.Second)
		if err != nil {
			return loadResult{}, err
		}
		defer w.Close()
		wires[i] = w
	}
	all, errs := make([]seen, len(wires)), make([]error, len(wires))
	began := time.Now()
	l.end = began.Add(l.lasts)
	var senders sync.WaitGroup
	for i, w := range wires {
		senders.Go(func() { all[i], errs[i] = l.ask(w) })
	}
	if l.due != nil {
		l.pace(ctx, began)
	}
	senders.Wait()
	return summary(all, time.Since(began)), errors.Join(errors.Join(errs...), ctx.Err())
}

func (l *load) prepare() error {
	tokens := []string{""}
	if l.tokens != "" {
		data, err := os.ReadFile(l.tokens)
		if err != nil {
			return fmt.Errorf("read tokens: %w", err)
		}
		tokens = strings.Fields(string(data))
	}
	if l.tokens == "" && l.forged > 0 || len(tokens) == 0 {
		return errors.New("no tokens")
	}
	for _, token := range tokens {
		l.requests = append(l.requests, request(l.path, token))
	}
	if l.rate > 0 {
		// The channel holds all requests, so that pace never waits for a slow connection.
		l.due = make(chan time.Time, int(l.rate*l.lasts.Seconds())+1)
	}
	return nil
}

// request returns the bytes of a request, with the token at the end.
func request(path, token string) []byte {
	text := "GET " + path + " HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: headgate-bench/1\r\nAccept: application/json\r\nAccept-Language: en\r\n"
	if token != "" {
		text += "Authorization: Bearer " + token + "\r\n"
	}
	return []byte(text + "\r\n")
}

// pace schedules the requests regardless of the responses: a slow server must not get
// fewer requests.
func (l *load) pace(ctx context.Context, began time.Time) {
	defer close(l.due)
	runtime.GOMAXPROCS(runtime.NumCPU() + 1) // The thread that waits in the kernel needs one more.
	for n := 0; ctx.Err() == nil; n++ {
		at := began.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
		if !at.Before(l.end) {
			return
		}
		for wait := time.Until(at); wait > 0; wait = time.Until(at) {
			pause(wait)
		}
		select {
		case l.due <- at:
		default: // The channel is full only because of rounding.
		}
	}
}

// next returns the time from which the latency of the next request counts; ok is false if
// there is no request left.
func (l *load) next() (from time.Time, ok bool) {
	if l.due != nil {
		from, ok = <-l.due
		return from, ok
	}
	from = time.Now()
	return from, from.Before(l.end)
}

func (l *load) ask(w *wire) (seen, error) {
	s := seen{statuses: map[int]int{}, took: make([]time.Duration, 0, 1<<14)}
	order := rand.Perm(len(l.requests)) // Each connection has its own order of users.
	for n := 0; ; n++ {
		from, ok := l.next()
		if !ok {
			return s, nil
		}
		text := l.requests[order[n%len(order)]]
		if l.forged > 0 && rand.Float64() < l.forged {
			text = forge(text)
		}
		status, err := w.ask(text)
		if err != nil {
			return s, err
		}
		s.took = append(s.took, time.Since(from))
		s.statuses[status]++
	}
}

// forge returns the request with another signature at its end. The signature has the right
// length for ES256, so only a verification can reject it.
func forge(request []byte) []byte {
	var random [64]byte
	_, _ = crand.Read(random[:]) // It never fails.
	forged := slices.Clone(request)
	end := len(forged) - len("\r\n\r\n")
	base64.RawURLEncoding.Encode(forged[end-base64.RawURLEncoding.EncodedLen(len(random)):end], random[:])
	return forged
}

func summary(all []seen, lasted time.Duration) loadResult {
	r := loadResult{Seconds: lasted.Seconds(), Statuses: map[int]int{}}
	var took []time.Duration
	for _, s := range all {
		took = append(took, s.took...)
		for status, n := range s.statuses {
			r.Statuses[status] += n
		}
	}
	r.Requests = len(took)
	if len(took) > 0 {
		slices.Sort(took)
		r.P50, r.P99, r.Max = took[len(took)/2], took[len(took)*99/100], took[len(took)-1]
	}
	return r
}

// wire is a connection for one request after another. It parses only what it needs to find
// the end of a response.
type wire struct {
	net.Conn

	r *bufio.Reader
}

// dial opens a connection that fails after timeout.
func dial(ctx context.Context, address string, timeout time.Duration) (*wire, error) {
	var dialer net.Dialer
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, errors.Join(fmt.Errorf("connect: %w", err), c.Close())
	}
	return &wire{Conn: c, r: bufio.NewReader(c)}, nil
}

// ask sends a request, reads the whole response and returns its status.
func (w *wire) ask(request []byte) (status int, err error) {
	if _, err := w.Write(request); err != nil {
		return 0, fmt.Errorf("send request: %w", err)
	}
	line, err := w.r.ReadSlice('\n')
	if err != nil {
		return 0, fmt.Errorf("await response: %w", err)
	}
	if len(line) < len("HTTP/1.1 200") {
		return 0, fmt.Errorf("read response: not a status: %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, fmt.Errorf("read response: %w", err)
	}
	length, name := -1, []byte("Content-Length:")
	for len(line) > len("\r\n") {
		if line, err = w.r.ReadSlice('\n'); err != nil {
			return 0, fmt.Errorf("read header: %w", err)
		}
		if len(line) > len(name) && bytes.EqualFold(line[:len(name)], name) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(line[len(name):]))); err != nil {
				return 0, fmt.Errorf("read header: %w", err)
			}
		}
	}
	if length < 0 {
		return 0, fmt.Errorf("read response: %d without a Content-Length", status)
	}
	if _, err := w.r.Discard(length); err != nil {
		return 0, fmt.Errorf("read body: %w", err)
	}
	return status, nil
}
