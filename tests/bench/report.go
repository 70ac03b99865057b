package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"text/tabwriter"
	"time"
)

// report collects the lines of the table at the end, and prints each one immediately.
type report struct {
	out   io.Writer
	lines []line
}

// line is a figure of a variant of a benchmark. Without a goal, goal and verdict are empty;
// without another figure to compare it with, ratio is.
type line struct{ benchmark, variant, figure, ratio, goal, verdict string }

func newReport(out io.Writer) *report { return &report{out: out} }

func (r *report) add(l line) {
	r.lines = append(r.lines, l)
	fmt.Fprintf(r.out, "%-14s %-44s %14s %8s %s %s\n", l.benchmark, l.variant, l.figure, l.ratio, l.goal, l.verdict)
}

// figure adds a figure.
func (r *report) figure(benchmark, variant, figure string) {
	r.add(line{benchmark: benchmark, variant: variant, figure: figure})
}

// compared adds a figure and its ratio to another one.
func (r *report) compared(benchmark, variant, figure string, ratio float64) {
	r.add(line{benchmark: benchmark, variant: variant, figure: figure, ratio: fmt.Sprintf("%.2f", ratio)})
}

// atLeast adds a figure whose ratio to another one should be at least goal. A missed goal is
// only marked.
func (r *report) atLeast(benchmark, variant, figure string, ratio, goal float64) {
	verdict := "ok"
	if ratio < goal {
		verdict = "below"
	}
	r.add(line{benchmark, variant, figure, fmt.Sprintf("%.2f", ratio), fmt.Sprintf(">= %g", goal), verdict})
}

// atMost adds a figure whose ratio to another one should be at most goal.
func (r *report) atMost(benchmark, variant, figure string, ratio, goal float64) {
	verdict := "ok"
	if ratio > goal {
		verdict = "above"
	}
	r.add(line{benchmark, variant, figure, fmt.Sprintf("%.2f", ratio), fmt.Sprintf("<= %g", goal), verdict})
}

// within adds a time that should be at most goal.
func (r *report) within(benchmark, variant string, took, goal time.Duration) {
	verdict := "ok"
	if took > goal {
		verdict = "above"
	}
	r.add(line{benchmark: benchmark, variant: variant, figure: rounded(took), goal: "<= " + goal.String(), verdict: verdict})
}

func (r *report) print() error {
	fmt.Fprintln(r.out)
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "benchmark\tvariant\tmedian\tratio\tgoal\t")
	for _, l := range r.lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", l.benchmark, l.variant, l.figure, l.ratio, l.goal, l.verdict)
	}
	return w.Flush()
}

// variant is one way to do the same thing; measure returns its figure, such as a rate.
type variant struct {
	name    string
	measure func(ctx context.Context) (float64, error)
}

// alternate runs the variants in turn and returns the median of each.
func (b *bench) alternate(ctx context.Context, variants ...variant) (map[string]float64, error) {
	figures := map[string][]float64{}
	for range b.rounds {
		for _, v := range variants {
			figure, err := v.measure(ctx)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", v.name, err)
			}
			figures[v.name] = append(figures[v.name], figure)
		}
	}
	medians := map[string]float64{}
	for name, all := range figures {
		slices.Sort(all)
		medians[name] = all[len(all)/2]
	}
	return medians, nil
}

func perSecond(rate float64) string { return fmt.Sprintf("%.0f/s", rate) }

func withDatabase(server, name string) (string, error) {
	u, err := url.Parse(server)
	if err != nil {
		return "", fmt.Errorf("read the URL of Postgres: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}
