package localserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const redisPatience = 15 * time.Second

// StartRedis starts a Redis server whose data is in o.Dir. A durable one has
// an append-only file and never evicts; the others have 4096 databases, so that
// every test can have one.
func StartRedis(ctx context.Context, o Options) (*Server, error) {
	program, err := find("redis-server", globbed("/opt/homebrew/bin", "/usr/local/bin")...)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make Redis folder: %w", err)
	}
	if o.Port == 0 {
		if o.Port, err = FreePort(ctx); err != nil {
			return nil, err
		}
	}
	args := []string{
		"--port", strconv.Itoa(o.Port), "--bind", "127.0.0.1", "--dir", o.Dir, "--daemonize", "no",
		"--maxmemory-policy", "noeviction", "--save", "",
	}
	if o.Durable {
		args = append(args, "--appendonly", "yes", "--appendfsync", "everysec")
	} else {
		args = append(args, "--appendonly", "no", "--databases", "4096")
	}
	output := &tail{next: o.Log}
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = output, output
	s, err := launch(cmd, syscall.SIGTERM)
	if err != nil {
		return nil, err
	}
	s.Port, s.URL = o.Port, fmt.Sprintf("redis://127.0.0.1:%d/0", o.Port)
	ctx, cancel := context.WithTimeout(ctx, redisPatience)
	defer cancel()
	if err := s.await(ctx, s.pingRedis); err != nil {
		s.kill()
		return nil, fmt.Errorf("%w\n%s", err, output)
	}
	return s, nil
}

// pingRedis also makes sure that it is this server which answers, and not a
// stranger on the same port.
func (s *Server) pingRedis(ctx context.Context) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", fmt.Sprintf("127.0.0.1:%d", s.Port))
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("INFO server\r\n")); err != nil {
		return err
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		if pid, ok := strings.CutPrefix(lines.Text(), "process_id:"); ok {
			if pid != strconv.Itoa(s.Pid()) {
				return errors.New("another Redis has the port")
			}
			return nil
		}
		if strings.HasPrefix(lines.Text(), "-") {
			return errors.New(lines.Text())
		}
	}
	return errors.Join(errors.New("no answer"), lines.Err())
}

func (s *Server) kill() {
	_ = s.cmd.Process.Kill() // It may have ended.
	<-s.done
}

// Clean removes a server's folder. The server must have ended.
func Clean(dir string) error {
	return errors.Join(os.RemoveAll(dir), os.RemoveAll(fallbackDir(dir)))
}

// fallbackDir is where data goes when the wanted folder is out of reach for
// the user that Postgres must run as.
func fallbackDir(dir string) string {
	absolute, err := filepath.Abs(dir)
	if err != nil {
		absolute = dir
	}
	return filepath.Join(fallbackRoot, strings.ReplaceAll(strings.Trim(absolute, "/"), "/", "-"))
}

const fallbackRoot = "/var/lib/headgate-local"
