package main

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
)

// directory measures the search of administrators among a million profiles, in user-service
// itself. A search writes its audit record.
func (b *bench) directory(ctx context.Context) error {
	const admin = "admin@example.com"
	auth, err := b.startService(ctx, "auth-service", "bench_auth", "PUBLIC_BASE_URL=http://localhost", "ADMIN_EMAIL="+admin, "ADMIN_PASSWORD="+benchPassword)
	if err != nil {
		return err
	}
	running := processes{auth}
	defer func() { running.stop() }()
	user, err := b.startService(ctx, "user-service", "bench_user", "JWKS_URL="+auth.url+"/.well-known/jwks.json")
	if err != nil {
		return err
	}
	running = append(running, user)
	if err := fillDirectory(ctx, user.database); err != nil {
		return err
	}
	c, a := newClient(auth.url, user.url), &account{email: admin}
	if err := c.login(ctx, a); err != nil {
		return err
	}
	for _, kind := range []struct {
		name    string
		queries []string
	}{
		{"first page", []string{""}},
		{"1 letter", []string{"a", "m", "s", "u", "k"}},
		{"2 letters", []string{"an", "ma", "sm", "us", "ko", "zu"}},
		{"3 letters", []string{"ann", "mar", "smi", "kov", "zur", "lor"}},
		{"first and last name", []string{"anna smith", "ko sm", "maria zuri"}},
		{"address", []string{"user777777@example.com", "user12345", "user99"}},
		{"nothing", []string{"nobody@example.com", "xqz", "%"}},
	} {
		took, err := c.searches(ctx, a, kind.queries)
		if err != nil {
			return err
		}
		b.report.figure("directory", kind.name+", 1,000,000 profiles, median", rounded(took[len(took)/2]))
		b.report.within("directory", kind.name+", p95", took[len(took)*95/100], 20*time.Millisecond)
	}
	return nil
}

// searches returns the times of searches, the shortest first.
func (c *client) searches(ctx context.Context, a *account, queries []string) ([]time.Duration, error) {
	const each = 60
	var took []time.Duration
	for i := range each * len(queries) {
		address := c.user + "/api/v1/user/"
		if q := queries[i%len(queries)]; q != "" {
			address += "?q=" + url.QueryEscape(q)
		}
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+a.access)
		started := time.Now()
		if err := c.send(req, nil); err != nil {
			return nil, err
		}
		took = append(took, time.Since(started))
	}
	slices.Sort(took)
	return took, nil
}

// fillDirectory makes a million profiles whose names have two words of three syllables.
func fillDirectory(ctx context.Context, address string) error {
	db, err := pgx.Connect(ctx, address)
	if err != nil {
		return fmt.Errorf("open the database: %w", err)
	}
	defer db.Close(context.WithoutCancel(ctx))
	const fill = `
		WITH syllables AS (SELECT ARRAY['an','na','ma','ri','a','smi','th','ko','va','lo','ren','zu','be','sa','to','mi','ka','el','ius','ha'] AS s)
		INSERT INTO profiles (user_id, email, name, created_at, updated_at)
		SELECT gen_random_uuid(), 'user' || n || '@example.com',
			initcap(s[1 + n * 7 % 20] || s[1 + n / 3 % 20] || s[1 + n / 41 % 20]) || ' ' || initcap(s[1 + n * 11 % 20] || s[1 + n / 7 % 20] || s[1 + n / 113 % 20]),
			timestamptz '2020-01-01' + n * interval '1 minute', now()
		FROM generate_series(1, 1000000) n, syllables`
	for _, query := range []string{fill, `VACUUM ANALYZE profiles`} {
		if _, err := db.Exec(ctx, query); err != nil {
			return fmt.Errorf("fill the directory: %w", err)
		}
	}
	return nil
}
