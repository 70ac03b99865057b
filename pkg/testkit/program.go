package testkit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/localserver"
	"github.com/headgate/headgate/pkg/token"
)

// programVariable makes a test binary be the program that it tests.
const programVariable = "TESTKIT_PROGRAM"

// ProgramMain is the TestMain of a main package. Started by StartProgram or
// RunProgram, or by such a process for one of its commands, the test binary is the
// program itself; else it runs the tests, as Main does.
func ProgramMain(m *testing.M, program func()) {
	command := len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-")
	if os.Getenv(programVariable) != "" || command {
		program()
		return
	}
	Main(m)
}

// Program is the program of the test's package, running as a process of its own.
type Program struct {
	URL    string // of the public listener
	OpsURL string // of the internal one

	t      testing.TB
	cmd    *exec.Cmd
	log    *Buffer
	exited chan struct{} // closed when the process has ended with err
	err    error
}

// StartProgram starts the program with nothing in its environment but the given
// variables, the keys of Signer and the addresses of its listeners, and returns when it is
// ready. The test stops it when it ends, if it has not.
func StartProgram(t testing.TB, environment map[string]string) *Program {
	t.Helper()
	environment = maps.Clone(environment)
	p := &Program{t: t, log: &Buffer{}, exited: make(chan struct{})}
	for variable, url := range map[string]*string{"HTTP_ADDR": &p.URL, "OPS_ADDR": &p.OpsURL} {
		port, err := localserver.FreePort(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		environment[variable] = fmt.Sprintf("127.0.0.1:%d", port)
		*url = "http://" + environment[variable]
	}
	// No load balancer sends requests here, so Stop need not wait for one.
	environment["DRAIN_DELAY"] = "0s"
	p.cmd = program(environment)
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		p.err = p.cmd.Wait()
	}()
	t.Cleanup(p.kill)
	Eventually(t, func() error {
		select {
		case <-p.exited:
			t.Fatalf("the program ended: %v\n%s", p.err, p.Log())
		default:
		}
		status, body := p.get(p.OpsURL + "/readyz")
		if status != http.StatusOK {
			return fmt.Errorf("readyz = %d %s\n%s", status, body, p.Log())
		}
		return nil
	})
	return p
}

// Stop sends SIGTERM and waits until the program has ended. The test fails if it ends
// with anything but 0.
func (p *Program) Stop() {
	p.t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	select {
	case <-p.exited:
		if p.err != nil {
			p.t.Errorf("the program ended with %v\n%s", p.err, p.Log())
		}
	case <-time.After(Timeout):
		p.t.Errorf("the program did not stop within %s\n%s", Timeout, p.Log())
	}
}

func (p *Program) kill() {
	_ = p.cmd.Process.Kill() // It fails if the process has ended.
	<-p.exited
}

// Log returns what the program has written so far.
func (p *Program) Log() string { return p.log.String() }

// Metrics returns the metrics of the program, in the text format.
func (p *Program) Metrics() string {
	p.t.Helper()
	status, body := p.get(p.OpsURL + "/metrics")
	if status != http.StatusOK {
		p.t.Fatalf("metrics = %d %s", status, body)
	}
	return body
}

// Ready returns the answer of /readyz.
func (p *Program) Ready() string {
	p.t.Helper()
	_, body := p.get(p.OpsURL + "/readyz")
	return body
}

func (p *Program) get(url string) (status int, body string) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, http.NoBody)
	if err != nil {
		p.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(data)
}

// Call sends a request with a JSON body, unless that is empty, and a bearer token,
// unless that is empty. It returns the status and the data of the response.
func (p *Program) Call(method, path, body, bearer string) (int, json.RawMessage) {
	p.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, p.URL+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if bearer != "" {
		req.Header.Set("Authorization", "Bearer "+bearer)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer res.Body.Close()
	var answer struct {
		Data json.RawMessage `json:"data"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		p.t.Fatalf("%s %s = %d, %v", method, path, res.StatusCode, err)
	}
	return res.StatusCode, answer.Data
}

// RunProgram runs the program with arguments until it ends, and returns its output and
// its exit code.
func RunProgram(t testing.TB, environment map[string]string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := program(environment, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errs.String(), exit.ExitCode()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), 0
}

// WantReadyWithoutRedis starts the program with an environment whose Redis is away. It
// must be ready, say so, and answer an administrator's request for path.
func WantReadyWithoutRedis(t testing.TB, issuer *Issuer, environment map[string]string, path string) {
	t.Helper()
	environment["REDIS_URL"] = "redis://127.0.0.1:1/0"
	p := StartProgram(t, environment)
	if status, data := p.Call("GET", path, "", issuer.Token(token.Identity{Role: token.RoleAdmin})); status != 200 {
		t.Errorf("%s = %d %s", path, status, data)
	}
	Eventually(t, func() error {
		if ready := p.Ready(); !strings.Contains(ready, `"status":"ready"`) || !strings.Contains(ready, "events wait and are published when it is back") {
			return fmt.Errorf("readyz = %s", ready)
		}
		return nil
	})
	p.Stop()
}

// WantMissing runs the program without any variable and checks that it fails and names
// those that it lacks.
func WantMissing(t testing.TB, variables ...string) {
	t.Helper()
	_, stderr, code := RunProgram(t, nil)
	for _, name := range variables {
		if code != 1 || !strings.Contains(stderr, name+": missing") {
			t.Errorf("exit code %d, %q, want %s named", code, stderr, name)
		}
	}
}

func program(environment map[string]string, args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...) //nolint:gosec,noctx // It is this very program; its test ends it.
	cmd.Env = []string{programVariable + "=1"}
	if environment != nil { // A program without any variable shows which it lacks.
		environment = maps.Clone(environment)
		for name, value := range map[string]string{"EVENT_SIGNING_KEY": signingSecret, "EVENT_PUBLIC_KEYS": publicKeys()} {
			if _, ok := environment[name]; !ok {
				environment[name] = value
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(environment)) {
		cmd.Env = append(cmd.Env, name+"="+environment[name])
	}
	return cmd
}
