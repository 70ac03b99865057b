package api_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/postgres"
	"github.com/headgate/headgate/pkg/problem"
	pkgservice "github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/user-service/internal/api"
	"github.com/headgate/headgate/services/user-service/internal/profile"
	"github.com/headgate/headgate/services/user-service/internal/store"
)

// TestMain sets another local time zone: responses are in UTC regardless.
func TestMain(m *testing.M) {
	time.Local = time.FixedZone("elsewhere", 3600)
	testkit.Main(m)
}

// service is user-service: its routes over HTTP and its consumer.
type service struct {
	*httptest.Server
	t      *testing.T
	issuer *testkit.Issuer
	redis  redis.UniversalClient
	db     *postgres.Pool
	routes []web.Route
	others *others

	avatars *profile.Avatars
	blobs   *store.Blobs
	// sweepingAt returns avatars to which it is that time.
	sweepingAt func(now time.Time) *profile.Avatars
}

func newService(t *testing.T, redisURL string) *service {
	t.Helper()
	return newServiceOn(t, redisURL, "file://"+t.TempDir())
}

// assets is the URL below which the pictures of the service are.
const assets = "https://cdn.example.com/avatars"

// newServiceOn returns a service that keeps its avatars at the address.
func newServiceOn(t *testing.T, redisURL, blobURL string) *service {
	t.Helper()
	client := testkit.OpenRedis(t, redisURL, time.Second)
	s := &service{
		t: t, issuer: testkit.NewIssuer(t), redis: client,
		db: testkit.Database(t, outbox.Schema(), deadletter.Schema(), store.Schema()),
	}
	log, metrics := testkit.Log(t), prometheus.NewRegistry()
	generation := store.NewGeneration(s.db, log)
	cache, err := bus.Redis{RedisURL: pkgservice.Secret(redisURL)}.OpenWith(5*time.Second, generation.Connected)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cache.Close() })
	if err := generation.Refresh(t.Context(), cache); err != nil {
		t.Fatal(err)
	}
	testkit.Run(t, generation.Watch(cache))
	profileCache := store.NewCache(store.CacheConfig{
		Client: cache, Generation: generation.Current, Reads: 10, Memory: 1 << 20, Log: log, Metrics: metrics, Now: time.Now,
	})
	testkit.Run(t, profileCache)
	if s.blobs, err = store.OpenBlobs(t.Context(), blobURL); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.blobs.Close() })
	rows := store.New(s.db, outbox.New("user-service"))
	profiles := profile.New(rows, profileCache, token.RemoteAccounts(token.Remote{JWKSURL: s.issuer.JWKSURL}), time.Now)
	s.avatars = profile.NewAvatars(profiles, rows, s.blobs, avatarMemory)
	s.avatars.MemoryWait, s.avatars.UploadTime = testkit.Timeout, testkit.Timeout
	s.sweepingAt = func(now time.Time) *profile.Avatars {
		later := profile.New(rows, nil, nil, func() time.Time { return now })
		return profile.NewAvatars(later, rows, s.blobs, avatarMemory)
	}
	deadLetters := deadletter.New(s.db, outbox.New("user-service"), time.Now)
	s.others = newOthers(t)
	exports := profile.NewExports(profiles, rows, s.others.sources(), api.MailLink(s.others.servers["auth"].URL), time.Hour)
	exports.Shown = api.Assets(assets).Shown
	s.routes = slices.Concat(deadLetters.Routes(api.Prefix), api.Routes(profiles, exports, assets), api.AvatarRoutes(s.avatars, assets))
	s.Server = httptest.NewServer(web.NewRouter(s.routes, web.Options{
		Auth: s.issuer.Verifier(), Log: log, Metrics: metrics, Read: outbox.New("user-service").Reads(s.db),
	}))
	t.Cleanup(s.Close)
	testkit.Run(t, bus.NewConsumer(bus.ConsumerConfig{
		Topic:      event.User,
		Subscriber: bus.NewSubscriber(bus.SubscriberConfig{Client: client, Group: "user-service", Consumer: "a", Log: log}),
		Handlers:   api.Handlers(profiles, s.avatars), DeadLetters: deadLetters, Log: log, Metrics: metrics,
	}))
	epochs := outbox.NewEpochs(s.db, client, "user-service", log, metrics)
	testkit.Run(t, outbox.NewRelay(s.db, bus.NewPublisher(client), epochs, log, metrics))
	return s
}

func newUser() token.Identity {
	return token.Identity{UserID: uuid.Must(uuid.NewV7()).String(), Role: token.RoleUser, Email: "ann@example.com", Name: "Ann"}
}

type answer struct {
	status int
	header http.Header
	Data   json.RawMessage
	Meta   web.Meta
	Code   string
	Errors []problem.Field
}

func (a answer) profile(t *testing.T) profile.Profile {
	t.Helper()
	var p profile.Profile
	if err := json.Unmarshal(a.Data, &p); err != nil {
		t.Fatalf("%v in %s", err, a.Data)
	}
	return p
}

func (s *service) do(caller token.Identity, method, path, body string, header ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(context.Background(), method, s.URL+api.Prefix+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if caller.Role != "" {
		req.Header.Set("Authorization", "Bearer "+s.issuer.Token(caller))
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	a := answer{status: res.StatusCode, header: res.Header}
	if res.StatusCode != http.StatusNotModified {
		if err := json.NewDecoder(res.Body).Decode(&a); err != nil {
			s.t.Fatal(err)
		}
	}
	return a
}

func (s *service) want(a answer, status int) answer {
	s.t.Helper()
	if a.status != status {
		s.t.Fatalf("status = %d %s %v, want %d", a.status, a.Code, a.Errors, status)
	}
	return a
}

func (s *service) publish(subject string, at time.Time, p event.Payload) {
	s.t.Helper()
	e := testkit.NewEvent(context.Background(), subject, p)
	e.OccurredAt = at.UTC()
	testkit.Publish(s.t, s.redis, event.User, e)
}

// wantAcknowledged waits until every event is published and acknowledged.
func (s *service) wantAcknowledged() {
	s.t.Helper()
	testkit.Eventually(s.t, func() error {
		var left int
		if err := s.db.QueryRow(s.t.Context(), `SELECT count(*) FROM outbox WHERE published_at IS NULL`).Scan(&left); err != nil || left > 0 {
			return errors.Join(err, fmt.Errorf("%d events unpublished", left))
		}
		return nil
	})
	testkit.WantAcknowledged(s.t, s.redis, event.User)
}
