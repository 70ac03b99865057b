package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// clockTick is the unit of times in /proc.
const clockTick = 10 * time.Millisecond

// family returns a process and its children.
func family(pid int) ([]int, error) {
	all := []int{pid}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		fields, err := stat(file)
		if err != nil || fields[1] != strconv.Itoa(pid) {
			continue // The process has ended, or belongs to another family.
		}
		one, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return nil, fmt.Errorf("inspect process: %w", err)
		}
		all = append(all, one)
	}
	return all, nil
}

// stat returns the fields of /proc/pid/stat after the name, which may contain anything.
func stat(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("inspect process: %w", err)
	}
	text := string(data)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) < 13 {
		return nil, fmt.Errorf("inspect process: %s is %q", file, data)
	}
	return fields, nil
}

// cpu returns the CPU time of the server and its children since they started.
func (s server) cpu() (time.Duration, error) {
	pids, err := family(s.pid)
	if err != nil {
		return 0, err
	}
	var ticks int64
	for _, pid := range pids {
		fields, err := stat(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		for _, field := range fields[11:13] { // in user and in system mode
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("inspect process: %w", err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * clockTick, nil
}

// resident returns the resident memory of the server, in bytes.
func (s server) resident() (int, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.pid))
	if err != nil {
		return 0, fmt.Errorf("inspect process: %w", err)
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0, fmt.Errorf("inspect process: statm is %q", data)
	}
	pages, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0, fmt.Errorf("inspect process: %w", err)
	}
	return pages * os.Getpagesize(), nil
}

// mallocs returns how many objects the server has allocated, or 0 if it has no metrics.
func (s server) mallocs(ctx context.Context) (float64, error) {
	if s.ops == "" {
		return 0, nil
	}
	return s.metric(ctx, "go_memstats_mallocs_total")
}

// metric returns a metric without labels of a server that has an internal listener.
func (s server) metric(ctx context.Context, name string) (float64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.ops+"/metrics", http.NoBody)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("read metrics: %w", err)
	}
	defer res.Body.Close()
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		if text, ok := strings.CutPrefix(lines.Text(), name+" "); ok {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, errors.Join(fmt.Errorf("read metrics: no %s", name), lines.Err())
}
