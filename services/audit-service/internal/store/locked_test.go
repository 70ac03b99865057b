package store

import (
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestAddLockedRow is REL-78: one locked row among 500 delays the other records by about a
// second at most. The lock is that of a transaction which adds the same record.
func TestAddLockedRow(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	events := newEvents(500)
	const locked = 250
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), insert, columnsOf(events[locked:locked+1])); err != nil {
		t.Fatal(err)
	}
	for i, err := range addAll(t, s, events, 20*time.Second) {
		if (i == locked) != postgres.Contended(err) || i != locked && err != nil {
			t.Errorf("Add(%d) = %v", i, err)
		}
	}
}

// TestAddLockedTable: while an erasure has locked the log, no record waits long. Each is
// tried again later.
func TestAddLockedTable(t *testing.T) {
	t.Parallel()
	s := newStore(t)
	tx, err := s.db.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(t.Context()) }()
	if _, err := tx.Exec(t.Context(), `SELECT pg_advisory_xact_lock($1)`, int64(eraseLock)); err != nil {
		t.Fatal(err)
	}
	for i, err := range addAll(t, s, newEvents(500), 20*time.Second) {
		if !postgres.Contended(err) {
			t.Errorf("Add(%d) = %v", i, err)
		}
	}
}

func newEvents(n int) []event.Event {
	events := make([]event.Event, n)
	for i := range events {
		events[i] = newEvent()
	}
	return events
}

// addAll adds all events at the same time, which must take less than limit.
func addAll(t *testing.T, s *Store, events []event.Event, limit time.Duration) []error {
	t.Helper()
	errs := make([]error, len(events))
	start := time.Now()
	var running sync.WaitGroup
	for i, e := range events {
		running.Go(func() { errs[i] = s.Add(t.Context(), e) })
	}
	running.Wait()
	if took := time.Since(start); took > limit {
		t.Errorf("%d events took %s, want less than %s", len(events), took, limit)
	} else {
		testkit.Log(t).InfoContext(t.Context(), "events added", "took", took.String())
	}
	return errs
}
