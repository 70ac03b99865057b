package main

import (
	"strings"
	"testing"
)

func names(t *testing.T, seed uint64) []string {
	t.Helper()
	var output strings.Builder
	chosen, err := schedule(options{seed: seed, out: &output})
	if err != nil {
		t.Fatal(err)
	}
	found := make([]string, len(chosen))
	for i, f := range chosen {
		found[i] = f.name
	}
	return found
}

// TestTheSeedDecidesTheSchedule: a run with a seed can be repeated, pairs included.
func TestTheSeedDecidesTheSchedule(t *testing.T) {
	t.Parallel()
	first, again, other := names(t, 1), names(t, 1), names(t, 2)
	if strings.Join(first, ";") != strings.Join(again, ";") {
		t.Errorf("two schedules of one seed: %v and %v", first, again)
	}
	if strings.Join(first, ";") == strings.Join(other, ";") {
		t.Errorf("the same schedule for two seeds: %v", first)
	}
}

// TestRoundSeeds: the rounds of a long run follow from its seed and differ.
func TestRoundSeeds(t *testing.T) {
	t.Parallel()
	seen := map[uint64]bool{}
	for round := range 20 {
		seed := roundSeed(5, round)
		if seed != roundSeed(5, round) || seen[seed] {
			t.Errorf("round %d has the seed %d again, or another one when repeated", round, seed)
		}
		seen[seed] = true
	}
	if roundSeed(5, 0) != 5 {
		t.Errorf("the first round has the seed %d, want that of the run", roundSeed(5, 0))
	}
}
