package main

import (
	"fmt"
	"os"
	"time"
)

// showProgress draws the progress, at most a few times a second.
func (i *importer) showProgress() {
	if time.Since(i.shown) < 200*time.Millisecond {
		return
	}
	i.shown = time.Now()
	i.drawProgress()
}

// finishProgress draws the final state.
func (i *importer) finishProgress() {
	i.drawProgress()
	fmt.Fprintln(os.Stderr)
}

func (i *importer) drawProgress() {
	const width = 30
	share := 1.0
	if i.size > 0 {
		share = min(1, float64(i.bytes)/float64(i.size))
	}
	bar := make([]byte, width)
	for n := range bar {
		bar[n] = '.'
		if float64(n) < share*width {
			bar[n] = '#'
		}
	}
	rate := float64(i.line) / max(time.Since(i.started).Seconds(), 0.001)
	fmt.Fprintf(os.Stderr, "\r[%s] %3.0f%%  %d created, %d existing, %d refused, %.0f/s ", bar, share*100, i.created, i.existing, i.refused, rate)
}
