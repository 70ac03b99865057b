package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
)

// startUser runs an instance of user-service on a database that has its schema.
func (e *edge) startUser(ctx context.Context, database string, settings ...string) (server, error) {
	binary, err := e.b.build(ctx, "services/user-service")
	if err != nil {
		return server{}, err
	}
	ops, err := freeAddress(ctx)
	if err != nil {
		return server{}, err
	}
	return e.start(ctx, server{ops: "http://" + ops}, func(addr string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, binary)
		cmd.Env = append(os.Environ(), "ENV=development", "LOG_LEVEL=warn", "DRAIN_DELAY=0s", "LOCAL_DIR="+e.b.dir,
			"INSTANCE_ID="+uuid.NewString(), "HTTP_ADDR="+addr, "OPS_ADDR="+ops, "DATABASE_URL="+database, "REDIS_URL="+e.b.redisURL, "JWKS_URL="+e.service.url+jwksPath)
		cmd.Env = append(cmd.Env, settings...)
		return cmd
	})
}

// startConstant runs a service that checks tokens as every service does, and answers a
// constant.
func (e *edge) startConstant(ctx context.Context) (server, error) {
	return e.start(ctx, server{}, func(addr string) *exec.Cmd {
		return exec.CommandContext(ctx, e.self, "constant", "-addr", addr, "-jwks", e.service.url+jwksPath)
	})
}

// constant has the fields of a profile.
type constant struct {
	UserID      string          `json:"userId"`
	Email       string          `json:"email"`
	Name        string          `json:"name"`
	Bio         string          `json:"bio"`
	Locale      string          `json:"locale"`
	Timezone    string          `json:"timezone"`
	AvatarURL   string          `json:"avatarUrl"`
	Preferences json.RawMessage `json:"preferences"`
	CreatedAt   time.Time       `json:"createdAt"`
	UpdatedAt   time.Time       `json:"updatedAt"`
}

// runConstant is the program of startConstant.
func runConstant(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("constant", flag.ContinueOnError)
	addr := set.String("addr", "", "address to listen on")
	jwks := set.String("jwks", "", "URL of the set of keys")
	if err := set.Parse(args); err != nil {
		return fmt.Errorf("read options: %w", err)
	}
	log := slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	metrics := prometheus.NewRegistry()
	verifier := token.NewRemoteVerifier(token.Remote{JWKSURL: *jwks}, token.Expected{Issuer: "headgate", Audience: "headgate-api"}, log, metrics, time.Now)
	answer := constant{
		UserID: profileID(0), Email: "user-0@example.com", Name: "Somebody 0", Bio: strings.Repeat("Counts. ", 10),
		Preferences: []byte(`{"theme":"dark","fontSize":14}`), CreatedAt: time.Now().UTC(), UpdatedAt: time.Now().UTC(),
	}
	var networks web.Prefixes
	if err := networks.UnmarshalText([]byte("127.0.0.0/8")); err != nil {
		return fmt.Errorf("read networks: %w", err)
	}
	router := web.NewRouter([]web.Route{{
		Method: http.MethodGet, Path: userPath, Access: web.SignedIn,
		Handler: func(w http.ResponseWriter, _ *http.Request) error {
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("X-Cache", "HIT")
			return web.OK(w, http.StatusOK, answer)
		},
	}, {
		Method: http.MethodGet, Path: "/", Access: web.Anyone,
		Handler: func(w http.ResponseWriter, _ *http.Request) error { return web.OK(w, http.StatusOK, struct{}{}) },
	}}, web.Options{Auth: verifier, TrustedProxies: networks, Log: log, Metrics: metrics})
	server := web.NewServer(web.Listener{HTTPAddr: *addr}, router, log)
	server.FromGateway = true
	if err := server.Open(ctx); err != nil {
		return err
	}
	verified := make(chan error, 1)
	go func() { verified <- verifier.Run(ctx) }()
	if err := server.Run(ctx); err != nil {
		return err
	}
	return <-verified
}
