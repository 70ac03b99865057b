// Plain is the program that make bench compares auth-service with: sign-up and refresh in a
// minimum of net/http and pgx that executes the same statements, computes the same hash and
// signs the same tokens. It checks, limits, logs and publishes nothing, so it shows what all
// of that costs.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/crypto/argon2"
)

func main() {
	addr := flag.String("addr", "", "address to listen on")
	url := flag.String("database", "", "URL of a database with the tables of auth-service")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *addr, *url); err != nil {
		fmt.Fprintln(os.Stderr, "plain:", err)
		os.Exit(1) //nolint:gocritic // The process ends, so the signal handler need not be stopped.
	}
}

func run(ctx context.Context, addr, url string) error {
	db, err := pgxpool.New(ctx, url)
	if err != nil {
		return err
	}
	defer db.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	s := server{db: db, key: key, secret: []byte(rand.Text())}
	mux := http.NewServeMux()
	mux.Handle("POST /api/v1/auth/signup", handler(s.signUp))
	mux.Handle("POST /api/v1/auth/refresh", handler(s.refresh))
	server := &http.Server{Addr: addr, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		<-ctx.Done()
		_ = server.Close()
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// handler answers with what f returns.
func handler(f func(r *http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := f(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(map[string]any{"success": true, "data": out})
	})
}

type server struct {
	db     *pgxpool.Pool
	key    *ecdsa.PrivateKey
	secret []byte
}

type tokens struct {
	AccessToken  string `json:"accessToken"`
	RefreshToken string `json:"refreshToken"`
}

const insertOutbox = `INSERT INTO outbox (event_id, topic, name, subject, payload) VALUES ($1, $2, $3, $4, $5)`

func queueEvent(batch *pgx.Batch, name, subject string, data any, topics ...string) error {
	id := uuid.Must(uuid.NewV7()).String()
	payload, err := json.Marshal(map[string]any{
		"id": id, "name": name, "occurredAt": time.Now(), "subject": subject, "producer": "plain",
		"actor": map[string]string{"type": "user", "id": subject}, "data": data,
	})
	if err != nil {
		return err
	}
	for _, topic := range topics {
		batch.Queue(insertOutbox, id, topic, name, subject, payload)
	}
	return nil
}

func (s server) signUp(r *http.Request) (any, error) {
	var in struct{ Email, Password, Name string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	var taken bool
	if err := s.db.QueryRow(r.Context(), `SELECT EXISTS (SELECT FROM accounts WHERE email_key = $1)`, in.Email).Scan(&taken); err != nil {
		return nil, err
	}
	if taken {
		return nil, errors.New("email taken")
	}
	salt := make([]byte, 16)
	rand.Read(salt)
	b64 := base64.RawStdEncoding
	key := argon2.IDKey([]byte(in.Password), salt, 2, 19<<10, 1, 32)
	hash := "$argon2id$v=19$m=19456,t=2,p=1$" + b64.EncodeToString(salt) + "$" + b64.EncodeToString(key)

	now := time.Now()
	id, session := uuid.Must(uuid.NewV7()).String(), uuid.Must(uuid.NewV7()).String()
	link := sha256.Sum256([]byte(rand.Text()))
	batch := &pgx.Batch{}
	batch.Queue(`
		INSERT INTO accounts (id, email, email_key, email_verified, name, role, status, password_hash, created_at, updated_at)
		VALUES ($1, $2, $2, false, $3, 'user', 'active', $4, $5, $5)`, id, in.Email, in.Name, hash, now)
	batch.Queue(`DELETE FROM one_time_tokens WHERE account_id = $1 AND purpose = 'verify_email'`, id)
	batch.Queue(`
		INSERT INTO one_time_tokens (hash, purpose, account_id, email, created_at, expires_at)
		VALUES ($1, 'verify_email', $2, $3, $4, $5)`, link[:], id, in.Email, now, now.Add(24*time.Hour))
	batch.Queue(`
		INSERT INTO sessions (id, account_id, generation, rotated_at, device_name, user_agent, ip, network,
			created_at, last_used_at, expires_at, ends_at, authenticated_at)
		VALUES ($1, $2, 1, $3, '', '', '', '', $3, $3, $4, $4, $3)`, session, id, now, now.Add(168*time.Hour))
	err := errors.Join(
		queueEvent(batch, "user.signed_up.v1", id, in, "audit-events", "user-events"),
		queueEvent(batch, "user.verification_requested.v1", id, in, "email-events"),
	)
	if err != nil {
		return nil, err
	}
	batch.Queue(`SELECT pg_notify('outbox', '')`)
	if err := s.db.SendBatch(r.Context(), batch).Close(); err != nil {
		return nil, err
	}
	return s.answer(id, session, 1)
}

func (s server) refresh(r *http.Request) (any, error) {
	var in struct{ RefreshToken string }
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	claims := jwt.MapClaims{}
	if _, err := jwt.ParseWithClaims(in.RefreshToken, claims, func(*jwt.Token) (any, error) { return s.secret, nil }); err != nil {
		return nil, err
	}
	session, _ := claims["sid"].(string)
	presented, _ := claims["gen"].(float64)
	var owner string
	generation := int(presented) + 1
	err := pgx.BeginFunc(r.Context(), s.db, func(tx pgx.Tx) error {
		var current int
		var status string
		err := tx.QueryRow(r.Context(), `
			SELECT s.account_id::text, s.generation, a.status
			FROM sessions s JOIN accounts a ON a.id = s.account_id
			WHERE s.id = $1 AND s.revoked_at IS NULL
			FOR UPDATE OF s`, session).Scan(&owner, &current, &status)
		if err != nil {
			return err
		}
		if current != int(presented) {
			return errors.New("refresh token reused")
		}
		now := time.Now()
		batch := &pgx.Batch{}
		batch.Queue(`
			UPDATE sessions
			SET generation = $2, rotated_at = $3, user_agent = '', ip = '', network = '', last_used_at = $3, expires_at = $4
			WHERE id = $1`, session, generation, now, now.Add(168*time.Hour))
		if err := queueEvent(batch, "session.refreshed.v1", owner, map[string]any{"sessionId": session, "generation": generation}, "audit-events"); err != nil {
			return err
		}
		batch.Queue(`SELECT pg_notify('outbox', '')`)
		return tx.SendBatch(r.Context(), batch).Close()
	})
	if err != nil {
		return nil, err
	}
	return s.answer(owner, session, generation)
}

func (s server) answer(owner, session string, generation int) (any, error) {
	now := time.Now()
	access := jwt.NewWithClaims(jwt.SigningMethodES256, jwt.MapClaims{
		"iss": "plain", "aud": "plain", "sub": owner, "sid": session, "role": "user", "jti": uuid.NewString(),
		"iat": now.Unix(), "exp": now.Add(15 * time.Minute).Unix(), "auth_time": now.Unix(),
	})
	refresh := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": "plain", "sub": owner, "sid": session, "gen": generation, "iat": now.Unix(), "exp": now.Add(168 * time.Hour).Unix(),
	})
	var out struct {
		Tokens tokens `json:"tokens"`
	}
	var accessErr, refreshErr error
	out.Tokens.AccessToken, accessErr = access.SignedString(s.key)
	out.Tokens.RefreshToken, refreshErr = refresh.SignedString(s.secret)
	return out, errors.Join(accessErr, refreshErr)
}
