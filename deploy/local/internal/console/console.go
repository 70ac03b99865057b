// Package console merges the output of several programs into one log, line by line. Each
// line begins with the name of its program.
package console

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// tailLines is the number of lines of each program that are kept for error reports.
const tailLines = 40

// maxLine is the maximum length of a line; a longer one is split.
const maxLine = 64 << 10

var colours = []string{"\x1b[36m", "\x1b[33m", "\x1b[32m", "\x1b[35m", "\x1b[34m", "\x1b[96m", "\x1b[93m", "\x1b[92m"}

const reset = "\x1b[0m"

// Console is the merged log. Its methods may be called concurrently.
type Console struct {
	mu     sync.Mutex
	out    io.Writer
	colour bool
	width  int
	folder string
	names  map[string]*Program
}

// New returns a log that is written to out. The lines of each program are also written to
// <folder>/<name>.log.
func New(out io.Writer, folder string, names ...string) *Console {
	c := &Console{out: out, folder: folder, names: map[string]*Program{}}
	for _, name := range names {
		c.width = max(c.width, len(name))
	}
	return c
}

// Colour gives a colour to each program that is added from now on.
func (c *Console) Colour() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.colour = true
}

// Terminal says whether w is a terminal.
func Terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// Program returns the log of the named program. The first call for a name empties its file.
func (c *Console) Program(name string) (*Program, error) { return c.program(name, c.out) }

// Quiet is Program for a program whose lines are written to its file only.
func (c *Console) Quiet(name string) (*Program, error) { return c.program(name, io.Discard) }

func (c *Console) program(name string, out io.Writer) (*Program, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.names[name]; ok {
		return p, nil
	}
	if err := os.MkdirAll(c.folder, 0o700); err != nil {
		return nil, fmt.Errorf("make log folder: %w", err)
	}
	file, err := os.OpenFile(filepath.Join(c.folder, name+".log"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600) //nolint:gosec // The launcher names its own programs.
	if err != nil {
		return nil, fmt.Errorf("open log: %w", err)
	}
	p := &Program{console: c, file: file, out: out, prefix: fmt.Sprintf("%-*s | ", c.width, name)}
	if c.colour {
		p.prefix = colours[len(c.names)%len(colours)] + p.prefix + reset
	}
	c.names[name] = p
	return p, nil
}

// Print writes text that belongs to no program, such as the summary.
func (c *Console) Print(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = io.WriteString(c.out, text) // An error of the log cannot be logged.
}

// Close completes the last lines and closes the files.
func (c *Console) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, p := range c.names {
		if len(p.partial) > 0 {
			p.line(p.partial)
			p.partial = nil
		}
		errs = append(errs, p.file.Close())
	}
	return errors.Join(errs...)
}

// Program is the log of one program.
type Program struct {
	console *Console
	file    *os.File
	prefix  string
	out     io.Writer // the merged log
	partial []byte
	tail    []string
}

// Write writes complete lines and keeps the rest until its line is complete.
func (p *Program) Write(b []byte) (int, error) {
	p.console.mu.Lock()
	defer p.console.mu.Unlock()
	p.partial = append(p.partial, b...)
	for {
		end := bytes.IndexByte(p.partial, '\n')
		if end < 0 && len(p.partial) < maxLine {
			return len(b), nil
		}
		if end < 0 || end > maxLine {
			p.line(p.partial[:maxLine])
			p.partial = p.partial[maxLine:]
			continue
		}
		p.line(p.partial[:end])
		p.partial = p.partial[end+1:]
	}
}

func (p *Program) line(line []byte) {
	text := strings.TrimRight(string(line), "\r")
	p.tail = append(p.tail, text)
	if len(p.tail) > tailLines {
		p.tail = slices.Delete(p.tail, 0, len(p.tail)-tailLines)
	}
	// An error of the log cannot be logged, and must not stop the program.
	_, _ = fmt.Fprintln(p.out, p.prefix+text)
	_, _ = fmt.Fprintln(p.file, text)
}

// Tail returns the last lines, oldest first.
func (p *Program) Tail() []string {
	p.console.mu.Lock()
	defer p.console.mu.Unlock()
	return slices.Clone(p.tail)
}
