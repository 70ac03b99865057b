package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/account"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

// signUp signs somebody up under an Idempotency-Key.
func signUp(t *testing.T, p *testkit.Program, key string) (status int, replayed, refresh string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/api/v1/auth/signup",
		strings.NewReader(`{"email":"`+key+`@example.com","password":"correct horse battery","name":"Ann"}`))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Idempotency-Key", key)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var body struct {
		Data struct {
			Tokens struct{ RefreshToken string }
		}
	}
	if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, res.Header.Get("Idempotency-Replayed"), body.Data.Tokens.RefreshToken
}

// All keys are rotated in a running system without a refused refresh, a repeated sign-up that
// is taken for another one, or a value that cannot be read. Then the old keys are removed.
func TestSEC127KeysRotate(t *testing.T) {
	t.Parallel()
	before := map[string]string{
		"DATABASE_URL": testkit.DatabaseURL(t), "REDIS_URL": testkit.RedisURL(t), "PUBLIC_BASE_URL": "http://localhost:8080",
	}
	listed, after := maps.Clone(before), maps.Clone(before)
	for name, old := range map[string]string{"REFRESH_TOKEN_SECRET": "refresh0123456789-", "ENCRYPTION_KEY": "encrypt0123456789-", "EVENT_SEAL_KEY": "sealing0123456789-"} {
		old = strings.Repeat(old, 3)
		fresh := strings.ToUpper(old)
		before[name], listed[name], after[name] = old, "b:"+fresh+",default:"+old, "b:"+fresh
	}
	refresh := func(p *testkit.Program, token string) string {
		t.Helper()
		var out struct {
			Tokens struct{ RefreshToken string }
		}
		status, data := p.Call("POST", "/api/v1/auth/refresh", `{"refreshToken":"`+token+`"}`, "")
		if err := json.Unmarshal(data, &out); err != nil || status != 200 {
			t.Fatalf("refresh = %d %s, %v", status, data, err)
		}
		return out.Tokens.RefreshToken
	}
	p := testkit.StartProgram(t, before)
	status, _, token := signUp(t, p, "ann")
	if status != 201 {
		t.Fatalf("sign-up = %d", status)
	}
	p.Stop()

	p = testkit.StartProgram(t, listed)
	if status, replayed, _ := signUp(t, p, "ann"); status != 201 || replayed != "true" {
		t.Errorf("repeated sign-up = %d, replayed %q", status, replayed)
	}
	token = refresh(p, token)
	if _, errs, code := testkit.RunProgram(t, after, "keys", "list"); code == 0 || !strings.Contains(errs, `with "default"`) {
		t.Errorf("without the old key, exit code %d, %q", code, errs)
	}
	for i, want := range []string{"signing keys re-encrypted: 1", "everything"} { // The second time, nothing is left.
		out, errs, code := testkit.RunProgram(t, listed, "keys", "re-encrypt")
		if code != 0 || !strings.HasPrefix(out, want) {
			t.Errorf("re-encrypt, time %d: exit code %d, %q %q", i+1, code, out, errs)
		}
	}
	p.Stop()

	p = testkit.StartProgram(t, after)
	refresh(p, token)
	if status, _, _ := signUp(t, p, "bob"); status != 201 {
		t.Errorf("sign-up = %d", status)
	}
	if _, errs, code := testkit.RunProgram(t, before, "keys", "list"); code == 0 || !strings.Contains(errs, `with "b"`) {
		t.Errorf("with the old keys alone, exit code %d, %q", code, errs)
	}
}

// Re-encryption goes on after an interruption, does not wait for rows that are in use, and
// leaves nothing behind.
func TestSEC128ReencryptionIsResumable(t *testing.T) {
	t.Parallel()
	const old, fresh, secrets = "0123456789abcdefghijklmnopqrstuv", "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345", 1200
	ctx, db := t.Context(), testkit.Database(t, outbox.Schema(), store.Schema())
	before, both := testkit.Sealer(t, old), testkit.Sealer(t, "b:"+fresh+",default:"+old)
	if _, err := signing.OpenKeyring(ctx, store.NewKeys(db, outbox.New(name), before), time.Now); err != nil {
		t.Fatal(err)
	}
	const add = `
		WITH a AS (
			INSERT INTO accounts (id, email, email_key, name, role, status, password_hash, created_at, updated_at)
			SELECT gen_random_uuid(), n || '@example.com', n || '@example.com', 'Ann', 'user', 'active', 'x', now(), now() FROM generate_series(1, $1) AS n
			RETURNING id
		)
		INSERT INTO factors (id, account_id, kind, name, secret, last_step, created_at)
		SELECT gen_random_uuid(), id, 'totp', 'App', '', 0, now() FROM a
		RETURNING id::text, account_id::text`
	rows, err := db.Query(ctx, add, secrets)
	if err != nil {
		t.Fatal(err)
	}
	owners := map[string]string{}
	for rows.Next() {
		var id, owner string
		if err := rows.Scan(&id, &owner); err != nil {
			t.Fatal(err)
		}
		owners[id] = owner
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	for id, owner := range owners {
		if _, err := db.Exec(ctx, `UPDATE factors SET secret = $2 WHERE id = $1`, id, string(before.Seal("of "+id, account.FactorContext(id, owner)))); err != nil {
			t.Fatal(err)
		}
	}
	seals := store.NewSeals(db, both)
	if err := store.NewSeals(db, testkit.Sealer(t, "b:"+fresh)).Check(ctx); !errors.Is(err, store.ErrUnknownSealingKey) || !strings.Contains(err.Error(), fmt.Sprintf(`%d TOTP secrets with "default"`, secrets)) {
		t.Errorf("Check without the old key = %v", err)
	}

	interrupted, interrupt := context.WithCancel(ctx)
	first := 0
	err = seals.Reencrypt(interrupted, func(name string, n int) {
		if name == "TOTP secrets" {
			first += n
			interrupt()
		}
	})
	if err == nil || first == 0 || first >= secrets {
		t.Fatalf("%d of %d re-encrypted before the interruption, %v", first, secrets, err)
	}

	// Somebody enters a code meanwhile.
	tx, err := db.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	var busy string
	if err := tx.QueryRow(ctx, `UPDATE factors SET last_step = 7 WHERE id = (SELECT id FROM factors WHERE secret LIKE 's1.%' LIMIT 1) RETURNING id::text`).Scan(&busy); err != nil {
		t.Fatal(err)
	}
	progress, done := make(chan int, 100), make(chan error, 1)
	go func() {
		done <- seals.Reencrypt(ctx, func(_ string, n int) { progress <- n })
	}()
	rest := 0
	for rest < secrets-first-1 {
		rest += <-progress
	}
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if rest += <-progress; rest != secrets-first {
		t.Errorf("%d re-encrypted after the interruption, want %d", rest, secrets-first)
	}
	after := testkit.Sealer(t, "b:"+fresh)
	if err := store.NewSeals(db, after).Check(ctx); err != nil {
		t.Error(err)
	}
	for id, owner := range owners {
		var secret string
		if err := db.QueryRow(ctx, `SELECT secret FROM factors WHERE id = $1`, id).Scan(&secret); err != nil {
			t.Fatal(err)
		}
		if plain, err := after.Open(event.Sealed(secret), account.FactorContext(id, owner)); err != nil || plain != "of "+id {
			t.Fatalf("%s opens as %q, %v", id, plain, err)
		}
	}
	if _, err := signing.OpenKeyring(ctx, store.NewKeys(db, outbox.New(name), after), time.Now); err != nil {
		t.Error(err)
	}
}
