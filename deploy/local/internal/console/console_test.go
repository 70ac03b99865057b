package console_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/headgate/headgate/deploy/local/internal/console"
)

func program(t *testing.T, c *console.Console, name string) *console.Program {
	t.Helper()
	p, err := c.Program(name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestLinesArePrefixedAndWhole(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	dir := t.TempDir()
	c := console.New(&out, dir, "long-name", "ab")
	one, two := program(t, c, "long-name"), program(t, c, "ab")
	fmt.Fprint(one, "first ha")
	fmt.Fprint(two, "other\r\n\n")
	fmt.Fprint(one, "lf\nsecond\nunfinished")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	want := "ab        | other\nab        | \nlong-name | first half\nlong-name | second\nlong-name | unfinished\n"
	if out.String() != want {
		t.Errorf("log =\n%s, want\n%s", &out, want)
	}
	file, err := os.ReadFile(filepath.Join(dir, "long-name.log"))
	if err != nil || string(file) != "first half\nsecond\nunfinished\n" {
		t.Errorf("file = %q, %v", file, err)
	}
}

func TestTailKeepsTheLastLines(t *testing.T) {
	t.Parallel()
	c := console.New(&bytes.Buffer{}, t.TempDir(), "p")
	p := program(t, c, "p")
	for i := range 100 {
		fmt.Fprintln(p, i)
	}
	if tail := p.Tail(); len(tail) != 40 || tail[0] != "60" || tail[39] != "99" {
		t.Errorf("Tail() = %v", tail)
	}
}

func TestLongLineIsSplit(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := console.New(&out, t.TempDir(), "p")
	fmt.Fprint(program(t, c, "p"), strings.Repeat("x", 200<<10), "\n")
	if lines := strings.Count(out.String(), "\n"); lines != 4 {
		t.Errorf("%d lines, want 4", lines)
	}
}

func TestProgramsWriteAtTheSameTime(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	c := console.New(&out, t.TempDir(), "a", "b")
	var writers sync.WaitGroup
	for _, name := range []string{"a", "b"} {
		p := program(t, c, name)
		writers.Go(func() {
			for range 200 {
				fmt.Fprintln(p, name)
			}
		})
	}
	writers.Wait()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if a, b := strings.Count(out.String(), "a | a\n"), strings.Count(out.String(), "b | b\n"); a != 200 || b != 200 {
		t.Errorf("%d and %d whole lines, want 200 each", a, b)
	}
}

func TestQuietProgramWritesToItsFileOnly(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	dir := t.TempDir()
	c := console.New(&out, dir, "p")
	p, err := c.Quiet("p")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(p, "hello")
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(dir, "p.log"))
	if err != nil || string(file) != "hello\n" || out.Len() != 0 || p.Tail()[0] != "hello" {
		t.Errorf("file = %q, %v, log = %q", file, err, &out)
	}
}
