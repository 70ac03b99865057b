package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgxpool"
)

const (
	profilesHot  = 1_000
	profilesCold = 50_000
	stampede     = 500
	profileLasts = 2200 * time.Millisecond
)

// profile compares GET user/me through the gateway, from the memory of user-service, from
// Redis and from Postgres, with a handler that answers a constant behind the same checks.
func (b *bench) profile(ctx context.Context) error {
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	database, err := e.profiles(ctx, "bench_profile", profilesCold)
	if err != nil {
		return err
	}
	hot, cold := filepath.Join(b.dir, "tokens-hot"), filepath.Join(b.dir, "tokens-cold")
	if err := errors.Join(e.writeProfileTokens(hot, profilesHot), e.writeProfileTokens(cold, profilesCold)); err != nil {
		return err
	}
	lines, err := e.profileLines(ctx, database, hot, cold)
	if err != nil {
		return err
	}
	if err := e.warm(ctx, lines); err != nil {
		return err
	}
	var variants []variant
	for _, line := range lines {
		variants = append(variants, variant{line.name, func(ctx context.Context) (float64, error) {
			if line.name == "miss" {
				if err := b.forgetProfiles(ctx); err != nil {
					return 0, err
				}
			}
			c, err := e.saturate(ctx, line)
			return c.rate, err
		}})
	}
	rates, err := b.alternate(ctx, variants...)
	if err != nil {
		return err
	}
	b.report.figure("profile", "constant handler behind the same checks", perSecond(rates["constant"]))
	b.report.atLeast("profile", fmt.Sprintf("hot in memory, %d users / that", profilesHot), perSecond(rates["hot"]), rates["hot"]/rates["constant"], 0.9)
	b.report.atLeast("profile", fmt.Sprintf("Redis hit, %d users / that", profilesHot), perSecond(rates["redis"]), rates["redis"]/rates["constant"], 0.6)
	b.report.compared("profile", fmt.Sprintf("miss, %d users / constant handler with these", profilesCold), perSecond(rates["miss"]), rates["miss"]/rates["constant-cold"])
	b.report.compared("profile", "hot in memory / a service that checks nothing", perSecond(rates["bare"]), rates["hot"]/rates["bare"])
	return nil
}

// profileLines starts the services, each with a gateway in front of it.
func (e *edge) profileLines(ctx context.Context, database, hot, cold string) ([]edgeLine, error) {
	constant, err := e.startConstant(ctx)
	if err != nil {
		return nil, err
	}
	memory, err := e.startUser(ctx, database)
	if err != nil {
		return nil, err
	}
	redis, err := e.startUser(ctx, database, "PROFILE_CACHE_MEMORY=0")
	if err != nil {
		return nil, err
	}
	var lines []edgeLine
	for _, one := range []struct {
		name, tokens string
		service      server
	}{{"bare", hot, e.service}, {"constant", hot, constant}, {"hot", hot, memory}, {"redis", hot, redis}, {"constant-cold", cold, constant}, {"miss", cold, redis}} {
		// Each line has its own gateway, so that the tokens of another are not in its memory.
		gateway, err := e.startGateway(ctx, "gateway-"+one.name, "USER_URL="+one.service.url)
		if err != nil {
			return nil, err
		}
		lines = append(lines, edgeLine{one.name, gateway, loadOptions{path: userPath, tokens: one.tokens, connections: 32, lasts: profileLasts}})
	}
	return lines, nil
}

// profileSizes measures GET user/me with more profiles in the database.
func (b *bench) profileSizes(ctx context.Context) error {
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	sizes := []int{1_000, 100_000, 1_000_000}
	var variants []variant
	for _, n := range sizes {
		database, err := e.profiles(ctx, fmt.Sprintf("bench_profiles_%d", n), n)
		if err != nil {
			return err
		}
		user, err := e.startUser(ctx, database, "PROFILE_CACHE_MEMORY=0")
		if err != nil {
			return err
		}
		gateway, err := e.startGateway(ctx, fmt.Sprintf("gateway-%d", n), "USER_URL="+user.url)
		if err != nil {
			return err
		}
		for what, before := range map[string]int{"miss": 0, "Redis hit": 1} {
			variants = append(variants, variant{fmt.Sprint(what, " ", n), func(ctx context.Context) (float64, error) {
				if err := b.forgetProfiles(ctx); err != nil {
					return 0, err
				}
				return e.readProfiles(ctx, gateway, n, before)
			}})
		}
	}
	medians, err := b.alternate(ctx, variants...)
	if err != nil {
		return err
	}
	for _, what := range []string{"miss", "Redis hit"} {
		least := medians[fmt.Sprint(what, " ", sizes[0])]
		for _, n := range sizes {
			took := medians[fmt.Sprint(what, " ", n)]
			b.report.atMost("profile-sizes", fmt.Sprintf("%s with %d profiles / with %d", what, n, sizes[0]), fmt.Sprintf("%.2f ms", took), took/least, 1.2)
		}
	}
	return nil
}

// readProfiles returns the median time in milliseconds to read a random one of n profiles, one
// after the other, after it was read as often as before says.
func (e *edge) readProfiles(ctx context.Context, to server, n, before int) (float64, error) {
	w, err := dial(ctx, strings.TrimPrefix(to.url, "http://"), time.Minute)
	if err != nil {
		return 0, err
	}
	defer w.Close()
	times := make([]time.Duration, 200)
	for i := range times {
		token, err := e.token(profileID(rand.IntN(n)), uuid.NewString())
		if err != nil {
			return 0, err
		}
		for range before + 1 {
			started := time.Now()
			if status, err := w.ask(request(userPath, token)); err != nil || status != 200 {
				return 0, errors.Join(fmt.Errorf("GET me = %d", status), err)
			}
			times[i] = time.Since(started)
		}
	}
	slices.Sort(times)
	return times[len(times)/2].Seconds() * 1000, nil
}

// profileStampede counts the reads of the database for 500 simultaneous misses of one profile
// in two instances, while the database takes 100 ms.
func (b *bench) profileStampede(ctx context.Context) error {
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	database, err := e.profiles(ctx, "bench_profile_stampede", profilesHot)
	if err != nil {
		return err
	}
	var instances []server
	for range 2 {
		one, err := e.startUser(ctx, database)
		if err != nil {
			return err
		}
		instances = append(instances, one)
	}
	var all []float64
	for round := range b.rounds {
		token, err := e.token(profileID(round), uuid.NewString())
		if err != nil {
			return err
		}
		reads, err := simultaneously(ctx, instances, database, request(userPath, token))
		if err != nil {
			return err
		}
		all = append(all, reads...)
	}
	most := slices.Max(all)
	b.report.atMost("profile-miss", fmt.Sprintf("%d simultaneous misses, database reads of an instance", stampede), fmt.Sprintf("%.0f at most", most), most, 1)
	return nil
}

// simultaneously sends a request 500 times to the instances while profiles are locked, and
// returns how often each has read the database.
func simultaneously(ctx context.Context, instances []server, database string, text []byte) ([]float64, error) {
	const loads = "headgate_profile_cache_loads_total"
	before := make([]float64, len(instances))
	for i, s := range instances {
		var err error
		if before[i], err = s.metric(ctx, loads); err != nil {
			return nil, err
		}
	}
	db, err := pgxpool.New(ctx, database)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	wires := make([]*wire, stampede)
	for i := range wires {
		if wires[i], err = dial(ctx, strings.TrimPrefix(instances[i%len(instances)].url, "http://"), time.Minute); err != nil {
			return nil, err
		}
		defer wires[i].Close()
	}
	locked := make(chan error, 1)
	go func() {
		_, err := db.Exec(ctx, `DO $$ BEGIN LOCK TABLE profiles IN ACCESS EXCLUSIVE MODE; PERFORM pg_sleep(0.1); END $$`)
		locked <- err
	}()
	errs := make([]error, len(wires))
	var readers sync.WaitGroup
	for i, w := range wires {
		readers.Go(func() {
			if status, err := w.ask(text); err != nil || status != 200 {
				errs[i] = errors.Join(fmt.Errorf("GET me = %d", status), err)
			}
		})
	}
	readers.Wait()
	if err := errors.Join(errors.Join(errs...), <-locked); err != nil {
		return nil, err
	}
	for i, s := range instances {
		after, err := s.metric(ctx, loads)
		if err != nil {
			return nil, err
		}
		before[i] = after - before[i]
	}
	return before, nil
}

// profiles makes a database of user-service with n profiles, and returns its URL.
func (e *edge) profiles(ctx context.Context, name string, n int) (string, error) {
	migrated, err := e.b.startService(ctx, "user-service", name, "JWKS_URL="+e.service.url+jwksPath, "INSTANCE_ID="+uuid.NewString())
	if err != nil {
		return "", err
	}
	migrated.stop()
	db, err := pgxpool.New(ctx, migrated.database)
	if err != nil {
		return "", err
	}
	defer db.Close()
	const insert = `
		INSERT INTO profiles (user_id, email, name, bio, preferences, version, created_at, updated_at)
		SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(i), 12, '0'))::uuid, 'user-' || i || '@example.com', 'Somebody ' || i,
			repeat('Counts. ', 10), '{"theme":"dark","fontSize":14}', 1, now(), now()
		FROM generate_series(0, $1::bigint - 1) i`
	if _, err := db.Exec(ctx, insert, n); err != nil {
		return "", fmt.Errorf("make %d profiles: %w", n, err)
	}
	_, err = db.Exec(ctx, `VACUUM (ANALYZE)`)
	return migrated.database, err
}

func profileID(i int) string { return fmt.Sprintf("01900000-0000-7000-8000-%012x", i) }

// writeProfileTokens writes a token for each of the first n profiles.
func (e *edge) writeProfileTokens(file string, n int) error {
	all := make([]string, n)
	for i := range all {
		var err error
		if all[i], err = e.token(profileID(i), uuid.NewString()); err != nil {
			return err
		}
	}
	return os.WriteFile(file, []byte(strings.Join(all, "\n")), 0o600)
}

// forgetProfiles deletes the profiles that Redis has.
func (b *bench) forgetProfiles(ctx context.Context) error {
	keys := b.redis.Scan(ctx, 0, "user:profile:v1:*", 1000).Iterator()
	var some []string
	for keys.Next(ctx) {
		if some = append(some, keys.Val()); len(some) == 1000 {
			if err := b.redis.Unlink(ctx, some...).Err(); err != nil {
				return fmt.Errorf("forget profiles: %w", err)
			}
			some = some[:0]
		}
	}
	if len(some) > 0 {
		return errors.Join(keys.Err(), b.redis.Unlink(ctx, some...).Err())
	}
	return keys.Err()
}
