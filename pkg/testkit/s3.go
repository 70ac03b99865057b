package testkit

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/pkg/localserver"
)

// S3 is a server with the API of S3, versitygw, which has one bucket. The version is that of
// tools/go.mod.
type S3 struct {
	URL    string // of the bucket, as gocloud.dev reads it
	Folder string // with a file for each object

	t         testing.TB
	program   string
	arguments []string
	address   string
	cmd       *exec.Cmd
}

// The keys of the server are in the environment, where the AWS SDK looks for them.
const (
	s3KeyID = "headgate-test"
	s3Key   = "headgate-test-secret"
	bucket  = "pictures"
)

// S3Environment returns the variables that a program needs to reach the server, besides its URL.
func S3Environment() map[string]string {
	return map[string]string{"AWS_ACCESS_KEY_ID": s3KeyID, "AWS_SECRET_ACCESS_KEY": s3Key}
}

// StartS3 starts a server and sets S3Environment in this process. The test stops the server when
// it ends. The first start on a machine builds it, which takes minutes.
func StartS3(t testing.TB) *S3 {
	t.Helper()
	program, err := versitygw()
	if err != nil {
		t.Fatalf("build versitygw: %v", err)
	}
	for name, value := range S3Environment() {
		if err := os.Setenv(name, value); err != nil { //nolint:usetesting // It is the same for all tests, which are parallel.
			t.Fatal(err)
		}
	}
	port, err := localserver.FreePort(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
	attributes := t.TempDir() // The file system of the objects may not have extended attributes.
	s := &S3{
		t: t, program: program, address: address, Folder: filepath.Join(t.TempDir(), "objects", bucket),
		URL: fmt.Sprintf("s3://%s?region=us-east-1&use_path_style=true&hostname_immutable=true&endpoint=%s", bucket, url.QueryEscape("http://"+address)),
	}
	s.arguments = []string{"--port", address, "--access", s3KeyID, "--secret", s3Key, "--quiet", "posix", "--sidecar", attributes, filepath.Dir(s.Folder)}
	if err := os.MkdirAll(s.Folder, 0o700); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	t.Cleanup(s.Stop)
	return s
}

// Restart starts the server again, with its objects, and waits until it answers.
func (s *S3) Restart() {
	s.t.Helper()
	output := &Buffer{}
	s.cmd = exec.Command(s.program, s.arguments...) //nolint:gosec,noctx // The test ends it.
	s.cmd.Stdout, s.cmd.Stderr = output, output
	if err := s.cmd.Start(); err != nil {
		s.t.Fatalf("start versitygw: %v", err)
	}
	Eventually(s.t, func() error {
		var dialer net.Dialer
		conn, err := dialer.DialContext(context.Background(), "tcp", s.address)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, output.String())
		}
		return conn.Close()
	})
}

// Stop stops the server, as an outage does.
func (s *S3) Stop() {
	_ = s.cmd.Process.Kill() // It fails if the process has ended.
	_ = s.cmd.Wait()         // It was killed.
}

// versitygw returns the path of the program. Go keeps what it has built in its cache.
var versitygw = sync.OnceValues(func() (string, error) {
	folder, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; ; folder = filepath.Dir(folder) {
		if _, err := os.Stat(filepath.Join(folder, "tools", "go.mod")); err == nil {
			break
		}
		if folder == filepath.Dir(folder) {
			return "", fmt.Errorf("no folder tools above the test: %w", os.ErrNotExist)
		}
	}
	cmd := exec.Command("go", "tool", "-n", "versitygw")
	cmd.Dir = filepath.Join(folder, "tools")
	// Its flags are not those of the test, such as -race.
	cmd.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=-buildvcs=false")
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
})
