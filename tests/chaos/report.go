package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// verdict is the result of a run.
type verdict struct {
	evidence   evidence
	violations []violation
	window     []receivedMail
	errors     []string // faults without an effect or without a recovery
	took       time.Duration
}

const examples = 5 // of each invariant

// report prints the results and saves the violations. It fails with errFailed if there are
// violations or errors.
func (r *run) report(v *verdict) error {
	out := r.opts.out
	markdown := r.table(v)
	r.totals(v)
	for _, text := range v.errors {
		fmt.Fprintln(out, "ERROR ", text)
	}
	shown := map[string]int{}
	for _, one := range v.violations {
		if shown[one.Invariant]++; shown[one.Invariant] <= examples {
			fmt.Fprintf(out, "VIOLATION  %s, %s, in %q: %s\n", one.Invariant, one.Effect, one.Phase, one.Detail)
		}
	}
	for _, invariant := range slices.Sorted(maps.Keys(shown)) {
		fmt.Fprintf(out, "%5d × %s\n", shown[invariant], invariant)
	}
	if err := r.save(v, markdown); err != nil {
		return err
	}
	fmt.Fprintf(out, "seed %d, %s, history, logs and table.md in %s\n", r.opts.seed, v.took.Round(time.Second), r.dir)
	if len(v.violations)+len(v.errors) > 0 {
		return fmt.Errorf("%w: %d violations, %d errors; repeat it with -seed %d", errFailed, len(v.violations), len(v.errors), r.opts.seed)
	}
	return nil
}

// row is a line of the table.
type row struct{ acknowledged, lost, duplicated, window int }

// table prints the result of each fault. It returns the table for the documentation.
func (r *run) table(v *verdict) string {
	rows := map[string]*row{}
	at := func(phase string) *row {
		if rows[phase] == nil {
			rows[phase] = &row{}
		}
		return rows[phase]
	}
	for _, o := range v.evidence.History {
		if o.Outcome == ok {
			at(o.Phase).acknowledged++
		}
	}
	for _, one := range v.violations {
		switch one.Effect {
		case lost:
			at(one.Phase).lost++
		case duplicated:
			at(one.Phase).duplicated++
		}
	}
	for _, m := range v.window {
		at(m.Phase).window++
	}
	table := tabwriter.NewWriter(r.opts.out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "fault\tacknowledged\tlost\tduplicated\tmail window\teffect\trecovered in\t")
	var sum row
	for _, res := range r.results {
		cell := at(res.name)
		sum.acknowledged += cell.acknowledged
		sum.lost += cell.lost
		sum.duplicated += cell.duplicated
		sum.window += cell.window
		line(table, res, *cell)
	}
	fmt.Fprintf(table, "total\t%d\t%d\t%d\t%d\t\t\t\n", sum.acknowledged, sum.lost, sum.duplicated, sum.window)
	_ = table.Flush() // An error of the output would be visible.
	return r.markdown(rows)
}

// markdown returns the table as docs/RESILIENCE.md has it.
func (r *run) markdown(rows map[string]*row) string {
	var text strings.Builder
	text.WriteString("| fault | acknowledged | lost | duplicated | recovered in |\n|---|---|---|---|---|\n")
	for _, res := range r.results {
		cell := rows[res.name]
		if res.name == calm {
			continue
		}
		duplicated := strconv.Itoa(cell.duplicated)
		if cell.window > 0 {
			duplicated += fmt.Sprintf(" (%d in the window)", cell.window)
		}
		fmt.Fprintf(&text, "| %s | %d | %d | %s | %s |\n", res.name, cell.acknowledged, cell.lost, duplicated, recoveredIn(res))
	}
	return text.String()
}

func recoveredIn(res result) string {
	if res.recovered == 0 {
		return "never"
	}
	return fmt.Sprintf("%.1f s", res.recovered.Seconds())
}

func line(w io.Writer, res result, cell row) {
	recovered := recoveredIn(res)
	effect := strconv.FormatInt(res.effect, 10)
	if res.name == calm {
		effect, recovered = "", ""
	}
	fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t\n", res.name, cell.acknowledged, cell.lost, cell.duplicated, cell.window, effect, recovered)
}

func (r *run) totals(v *verdict) {
	ends, failures := map[outcome]int{}, map[string]int{}
	for _, o := range v.evidence.History {
		ends[o.Outcome]++
		if o.Outcome == fail {
			failures[fmt.Sprintf("%s %d %s", o.Kind, o.Status, o.Detail)]++
		}
	}
	numbered := 0
	for _, d := range v.evidence.Deliveries {
		if d.ordered() {
			numbered++
		}
	}
	fmt.Fprintf(r.opts.out, "%d operations: %d ok, %d failed, %d unknown; %d audit records, %d mails, %d dead letters, %d of %d first deliveries checked for order\n",
		len(v.evidence.History), ends[ok], ends[fail], ends[unknown],
		len(v.evidence.Audit), len(v.evidence.Mails), len(v.evidence.DeadLetters), numbered, len(v.evidence.Deliveries))
	for _, text := range slices.Sorted(maps.Keys(failures)) {
		fmt.Fprintf(r.opts.out, "%5d × %s\n", failures[text], text)
	}
}

// save writes the violations, and the table for the documentation, to files beside the
// history.
func (r *run) save(v *verdict, markdown string) error {
	if err := os.WriteFile(filepath.Join(r.dir, "table.md"), []byte(markdown), 0o600); err != nil {
		return fmt.Errorf("save table: %w", err)
	}
	file, err := os.Create(filepath.Join(r.dir, "violations.jsonl"))
	if err != nil {
		return fmt.Errorf("save violations: %w", err)
	}
	encoder := json.NewEncoder(file)
	errs := make([]error, 0, len(v.violations)+1)
	for _, one := range v.violations {
		errs = append(errs, encoder.Encode(one))
	}
	return errors.Join(append(errs, file.Close())...)
}
