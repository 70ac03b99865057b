package stack

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestGatewayPort(t *testing.T) {
	t.Parallel()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := strconv.Itoa(l.Addr().(*net.TCPAddr).Port)

	if _, _, err := gatewayPort(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "GATEWAY_PORT: port "+taken+" is taken") {
		t.Errorf("gatewayPort(%s) = %v, want that it is taken", taken, err)
	}
	for _, requested := range []string{"x", "-1", "65536"} {
		if _, _, err := gatewayPort(t.Context(), requested); err == nil || !strings.Contains(err.Error(), "want a number") {
			t.Errorf("gatewayPort(%s) = %v, want an error", requested, err)
		}
	}
	for _, requested := range []string{"", "0"} {
		port, moved, err := gatewayPort(t.Context(), requested)
		if err != nil || port == 0 {
			t.Errorf("gatewayPort(%q) = %d, %v", requested, port, err)
		}
		if moved != (requested == "" && port != defaultGateway) {
			t.Errorf("gatewayPort(%q) = %d, moved %v", requested, port, moved)
		}
	}
}

func TestTakenPortIsReplaced(t *testing.T) {
	t.Parallel()
	first, err := listen(t.Context(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := listen(t.Context(), first.Addr().(*net.TCPAddr).Port)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	if first.Addr().String() == second.Addr().String() {
		t.Error("the same port was given twice")
	}
}

func TestReservedPortsAreDistinctAndReleased(t *testing.T) {
	t.Parallel()
	var ports reservedPorts
	seen := map[string]bool{}
	for range 20 {
		addr, err := ports.port(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		seen[addr] = true
	}
	if len(seen) != 20 {
		t.Errorf("%d distinct ports, want 20", len(seen))
	}
	if err := ports.release(); err != nil {
		t.Errorf("release() = %v", err)
	}
}

func TestFactsFollowThePids(t *testing.T) {
	t.Parallel()
	pids := map[string]int{"gateway": 1}
	f := &factsFile{path: filepath.Join(t.TempDir(), factsName), pids: func() map[string]int { return pids }}
	read := func() string {
		data, err := os.ReadFile(f.path)
		if err != nil {
			return ""
		}
		return string(data)
	}
	if err := f.refresh(); err != nil || read() != "" {
		t.Errorf("refresh() before publish = %v, wrote %q", err, read())
	}
	if err := f.publish(Facts{GatewayURL: "http://127.0.0.1:1"}); err != nil || !strings.Contains(read(), `"gateway": 1`) {
		t.Errorf("publish() = %v, wrote %q", err, read())
	}
	pids["gateway"] = 2
	if err := f.refresh(); err != nil || !strings.Contains(read(), `"gateway": 2`) || !strings.Contains(read(), `"gatewayUrl": "http://127.0.0.1:1"`) {
		t.Errorf("refresh() = %v, wrote %q", err, read())
	}
	if err := f.withdraw(); err != nil || read() != "" {
		t.Errorf("withdraw() = %v, left %q", err, read())
	}
	if err := f.refresh(); err != nil || read() != "" {
		t.Errorf("refresh() after withdraw = %v, wrote %q", err, read())
	}
	if err := f.withdraw(); err != nil {
		t.Errorf("second withdraw() = %v", err)
	}
}

// TestSummaryLinesArePasteable runs the lines for pasting in a shell, with a curl that shows
// its arguments.
func TestSummaryLinesArePasteable(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	script := "#!/bin/sh\nfor a in \"$@\"; do printf '[%s]' \"$a\" >&2; done\necho '{\"success\":true,\"data\":{\"tokens\":{\"accessToken\":\"tok.en\",\"tokenType\":\"Bearer\"}}}'\n"
	if err := os.WriteFile(filepath.Join(bin, "curl"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	text := summary(Facts{GatewayURL: "http://127.0.0.1:1", Admin: Admin{Email: "a@example.com", Password: `it's "odd" $HOME`}}, "/data")
	var shown []string
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, "curl ") {
			continue
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-c", line)
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		shown = append(shown, stderr.String())
	}
	if len(shown) != 3 {
		t.Fatalf("%d lines, want 3:\n%s", len(shown), text)
	}
	for i, want := range []string{
		`@example.com","password":"violet-harbor-42-lamp","name":"Ada"}]`,
		`[{"email":"a@example.com","password":"it's \"odd\" $HOME"}]`,
		`[http://127.0.0.1:1/api/v1/user/me][-H][Authorization: Bearer tok.en]`,
	} {
		if !strings.Contains(shown[i], want) {
			t.Errorf("line %d calls curl with %s, want %s", i+1, shown[i], want)
		}
	}
}

func TestServersRunACommand(t *testing.T) {
	t.Parallel()
	script := `case $TEST_DATABASE_URL in postgres://*) ;; *) exit 1;; esac; case $TEST_REDIS_URL in redis://given/*) ;; *) exit 2;; esac; exit 42`
	status, err := Servers(nil, append(os.Environ(), "TEST_DATABASE_URL=", "TEST_REDIS_URL=redis://given/3"), []string{"sh", "-c", script})
	if err != nil || status != 42 {
		t.Errorf("Servers() = %d, %v, want 42", status, err)
	}
}

func TestSignalsReachTheCommandOfServers(t *testing.T) {
	t.Parallel()
	started := filepath.Join(t.TempDir(), "started")
	signals := make(chan os.Signal)
	var sending sync.WaitGroup
	defer sending.Wait()
	sending.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for range tick.C {
			if _, err := os.Stat(started); err == nil {
				signals <- syscall.SIGTERM
				return
			}
		}
	})
	environ := append(os.Environ(), "TEST_DATABASE_URL=x", "TEST_REDIS_URL=x")
	status, err := Servers(signals, environ, []string{"sh", "-c", "trap 'exit 9' TERM; touch " + started + "; while :; do sleep 0.05; done"})
	if err != nil || status != 9 {
		t.Errorf("Servers() = %d, %v, want 9, the status of a command after SIGTERM", status, err)
	}
}

func TestSignalInterruptsTheStartOfServers(t *testing.T) {
	t.Parallel()
	signals := make(chan os.Signal, 1)
	signals <- syscall.SIGTERM
	_, err := Servers(signals, append(os.Environ(), "TEST_DATABASE_URL=", "TEST_REDIS_URL="), []string{"true"})
	if err == nil || !strings.Contains(err.Error(), "stopped by signal") {
		t.Errorf("Servers() = %v, want that it was stopped", err)
	}
}

func TestResetKeepsForeignFolders(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mine"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Reset(t.Context(), dir, t.Output()); err != nil {
		t.Errorf("Reset() = %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "mine")); err != nil {
		t.Errorf("a file in a folder that no stack has used: %v", err)
	}
}
