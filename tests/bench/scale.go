package main

import (
	"context"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/argon2"
)

const scaleSecret = "Zr7mQ4tVx1LkPw9sBn3dHy6fJc8gAe5u"

// scale measures a login and a refresh with more accounts and sessions. Each size has its
// own service; they are measured in turn.
func (b *bench) scale(ctx context.Context) error {
	sizes := []int{1_000, 100_000, 1_000_000}
	var running processes
	defer func() { running.stop() }()
	var variants []variant
	for _, n := range sizes {
		p, err := b.startService(ctx, "auth-service", fmt.Sprintf("bench_scale_%d", n),
			"PUBLIC_BASE_URL=http://localhost", "REFRESH_TOKEN_SECRET="+scaleSecret)
		if err != nil {
			return err
		}
		running = append(running, p)
		if err := populate(ctx, p.database, n); err != nil {
			return fmt.Errorf("make %d accounts: %w", n, err)
		}
		s := &population{size: n, client: newClient(p.url, ""), fresh: rand.Perm(n)}
		variants = append(variants,
			variant{fmt.Sprint("login ", n), func(ctx context.Context) (float64, error) { return s.cost(ctx, 40, s.login) }},
			variant{fmt.Sprint("refresh ", n), func(ctx context.Context) (float64, error) { return s.cost(ctx, 100, s.refresh) }},
		)
	}
	medians, err := b.alternate(ctx, variants...)
	if err != nil {
		return err
	}
	for _, what := range []string{"login ", "refresh "} {
		least := medians[what+strconv.Itoa(sizes[0])]
		for _, n := range sizes {
			cost := medians[what+strconv.Itoa(n)]
			b.report.atMost("scale", fmt.Sprintf("%swith %d accounts, sessions / with %d", what, n, sizes[0]), fmt.Sprintf("%.2f ms", cost), cost/least, 1.3)
		}
	}
	return nil
}

// populate creates n accounts with one session each. Their ids are their numbers.
func populate(ctx context.Context, url string, n int) error {
	const accounts = `
		INSERT INTO accounts (id, email, email_key, email_verified, name, role, status, password_hash, created_at, updated_at)
		SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'user-' || i || '@example.com', 'user-' || i || '@example.com',
			true, 'Somebody ' || i, 'user', 'active', $2, now(), now()
		FROM generate_series(0, $1::bigint - 1) i`
	const sessions = `
		INSERT INTO sessions (id, account_id, generation, rotated_at, device_name, user_agent, ip, network,
			created_at, last_used_at, expires_at, ends_at, authenticated_at)
		SELECT ('01900000-0000-7001-8000-' || lpad(to_hex(i), 12, '0'))::uuid, ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid,
			1, now(), '', 'bench', '192.0.2.1', '192.0.2.1', now(), now(), now() + interval '7 days', now() + interval '30 days', now()
		FROM generate_series(0, $1::bigint - 1) i`
	db, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	b64, salt := base64.RawStdEncoding, []byte("a salt of 16 b..")
	hash := "$argon2id$v=19$m=19456,t=2,p=1$" + b64.EncodeToString(salt) + "$" +
		b64.EncodeToString(argon2.IDKey([]byte(benchPassword), salt, 2, 19<<10, 1, 32))
	if _, err := db.Exec(ctx, accounts, n, hash); err != nil {
		return err
	}
	if _, err := db.Exec(ctx, sessions, n); err != nil {
		return err
	}
	// Autovacuum would do this later, in the middle of a round.
	_, err = db.Exec(ctx, `VACUUM (ANALYZE)`)
	return err
}

// population is the accounts that populate created.
type population struct {
	size   int
	client *client
	fresh  []int // accounts whose session was not refreshed yet
}

// cost returns the median time of n calls, one after the other, in milliseconds.
func (p *population) cost(ctx context.Context, n int, do func(context.Context) error) (float64, error) {
	times := make([]time.Duration, n)
	for i := range times {
		started := time.Now()
		if err := do(ctx); err != nil {
			return 0, err
		}
		times[i] = time.Since(started)
	}
	slices.Sort(times)
	return times[n/2].Seconds() * 1000, nil
}

func (p *population) login(ctx context.Context) error {
	return p.client.login(ctx, &account{email: fmt.Sprintf("user-%d@example.com", rand.IntN(p.size))})
}

func (p *population) refresh(ctx context.Context) error {
	i := p.fresh[0]
	p.fresh = p.fresh[1:]
	t := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "headgate", "sub": fmt.Sprintf("01900000-0000-7000-8000-%012x", i), "sid": fmt.Sprintf("01900000-0000-7001-8000-%012x", i),
		"gen": 1, "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix(),
	})
	t.Header["typ"] = "refresh+jwt"
	raw, err := t.SignedString([]byte(scaleSecret))
	if err != nil {
		return fmt.Errorf("sign a refresh token: %w", err)
	}
	return p.client.refresh(ctx, &account{refresh: raw})
}
