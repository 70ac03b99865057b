package postgres

import (
	"context"
	"fmt"
)

// Probe returns a function that returns an error while the database cannot commit a
// change: it is unreachable, read-only, or its disk is full. A ping would find only the
// first. The probe waits for no lock of another transaction and changes nothing: it
// fills some pages of a temporary table.
func Probe(db *Pool) func(context.Context) error {
	const query = `
		CREATE TEMPORARY TABLE headgate_probe ON COMMIT DROP AS
		SELECT n FROM generate_series(1, 2000) AS n`
	return func(ctx context.Context) error {
		if _, err := db.Exec(ctx, query); err != nil {
			return fmt.Errorf("probe the database: %w", err)
		}
		return nil
	}
}
