package main

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"slices"
	"text/tabwriter"
)

// report collects lines for the table at the end, and shows each as it comes.
type report struct {
	out   io.Writer
	lines [][]string
}

func newReport(out io.Writer) *report { return &report{out: out} }

// add notes a figure. ratio and goal are empty if there is none; a goal that is
// missed is marked, no more.
func (r *report) add(name, variant, figure, ratio, goal, verdict string) {
	r.lines = append(r.lines, []string{name, variant, figure, ratio, goal, verdict})
	fmt.Fprintf(r.out, "%-14s %-44s %14s %8s %s %s\n", name, variant, figure, ratio, goal, verdict)
}

// ratio notes a figure beside another, with the least that it should be of that.
func (r *report) ratio(name, variant, figure string, got, goal float64) {
	verdict := "ok"
	if got < goal {
		verdict = "below"
	}
	r.add(name, variant, figure, fmt.Sprintf("%.2f", got), fmt.Sprintf(">= %g", goal), verdict)
}

// most is ratio for what should be small.
func (r *report) most(name, variant, figure string, got, goal float64) {
	verdict := "ok"
	if got > goal {
		verdict = "above"
	}
	r.add(name, variant, figure, fmt.Sprintf("%.2f", got), fmt.Sprintf("<= %g", goal), verdict)
}

func (r *report) print() error {
	fmt.Fprintln(r.out)
	w := tabwriter.NewWriter(r.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "benchmark\tvariant\tmedian\tratio\tgoal\t")
	for _, line := range r.lines {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", line[0], line[1], line[2], line[3], line[4], line[5])
	}
	return w.Flush()
}

// variant is one way to do the same thing; measure returns what it achieved, such
// as a rate.
type variant struct {
	name    string
	measure func(ctx context.Context) (float64, error)
}

// rounds runs the variants in turn and returns the median of each.
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
