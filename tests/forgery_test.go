package tests

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ThreeDotsLabs/watermill/message"
	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/pkg/bus"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/tests/internal/redisserver"
)

// victim is the account against which a service forges events.
type victim struct{ userID, sessionID string }

var future = time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC)

// TestSEC118ForgeriesByServices is SEC-118: whatever a service writes to Redis, with its own
// user and its own key, no running service acts upon an event of another service. The user
// whose deletion and whose sessions' end were forged keeps the profile, the audit records and
// the sessions. What auth-service itself publishes with a wrong clock is SEC-117.
func TestSEC118ForgeriesByServices(t *testing.T) {
	t.Parallel()
	d := startDeployment(t)
	admin, c, email := d.admin(), d.client(), newEmail()
	me := c.signup(email)
	recorded := map[string]int{"user.signed_up": 1, "email.sent": 1}
	admin.wantAudit(me.ID, recorded)

	refusedFollowed := 0
	for _, topic := range event.Topics() {
		want := map[string]string{} // by event id, the beginning of the reason
		for _, writer := range ownServices {
			for reason, m := range d.forgeriesBy(writer, topic, victim{me.ID, c.tokens.SessionID}) {
				if d.addAs(writer, topic, m) {
					want[m.UUID], _, _ = strings.Cut(reason, ":")
				}
			}
		}
		if topic == event.User {
			refusedFollowed = len(want)
		}
		admin.wantDeadLetters(topic.Groups()[0], want)
	}
	for _, follower := range []string{"gateway", "auth-service", "email-service", "audit-service"} {
		d.wantUserEventsRefused(follower, refusedFollowed)
	}

	c.wantAlive(email)
	c.login(email, goodPassword)
	c.wantAlive(email)
	recorded["session.refreshed"], recorded["user.logged_in"] = 2, 1
	admin.wantAudit(me.ID, recorded) // They have IP addresses, which an erasure removes.
	d.wantFutureRevocationEndsOneSession(c, email)
	d.wantSignedDeletionErases(admin)
}

// wantAlive checks that the caller has a profile and can refresh the session.
func (c *client) wantAlive(email string) {
	c.t.Helper()
	var profile struct{ Email, Name string }
	if c.do(http.StatusOK, "GET /api/v1/user/me", nil, &profile); profile.Email != email || profile.Name != "Ada" {
		c.t.Errorf("profile = %+v", profile)
	}
	c.do(http.StatusOK, "POST /api/v1/auth/refresh", object{"refreshToken": c.tokens.RefreshToken}, &struct{ Tokens *tokens }{&c.tokens})
	c.do(http.StatusOK, "GET /api/v1/user/me", nil, nil)
}

// wantFutureRevocationEndsOneSession is SEC-117: a revocation of 2099 that auth-service has
// signed ends its session and nothing else. pkg/token tests how long that lasts.
func (d *deployment) wantFutureRevocationEndsOneSession(c *client, email string) {
	d.t.Helper()
	first := *c
	me := c.login(email, goodPassword)
	revoked := testkit.NewEvent(d.t.Context(), me.ID, event.SessionRevoked{SessionID: c.tokens.SessionID})
	revoked.OccurredAt = future
	d.publish("auth-service", event.User, revoked)
	testkit.Eventually(d.t, func() error {
		if a, err := c.try("GET", "/api/v1/user/me", nil); err != nil || a.Code != "session_revoked" {
			return fmt.Errorf("GET /user/me = %d %s, %w, want session_revoked", a.status, a.Code, err)
		}
		return nil
	})
	first.wantAlive(email)
	c.tokens = tokens{}
	c.login(email, goodPassword)
	c.wantAlive(email)
}

// wantSignedDeletionErases checks that the services act upon what they refuse from others if
// auth-service has signed it.
func (d *deployment) wantSignedDeletionErases(admin *client) {
	d.t.Helper()
	other := d.client().signup(newEmail())
	admin.wantAudit(other.ID, map[string]int{"user.signed_up": 1, "email.sent": 1})
	deleted := testkit.NewEvent(d.t.Context(), other.ID, event.UserDeleted{})
	d.publish("auth-service", event.Audit, deleted)
	d.publish("auth-service", event.User, deleted)
	var remaining int
	for service, query := range map[string]string{
		"audit-service": `SELECT count(*) FROM events WHERE subject_id = $1 AND ip <> ''`,
		"user-service":  `SELECT count(*) FROM profiles WHERE user_id = $1::uuid AND email <> ''`,
	} {
		db := d.database(service)
		testkit.Eventually(d.t, func() error {
			if err := db.QueryRow(d.t.Context(), query, other.ID).Scan(&remaining); err != nil || remaining > 0 {
				return fmt.Errorf("%s has %d rows of a deleted user, %w", service, remaining, err)
			}
			return nil
		})
	}
}

// signer returns the signer of a service that publishes, with its key.
func (d *deployment) signer(service string) *event.Signer {
	d.t.Helper()
	signer, err := event.NewSigner(service, d.environment(service)["EVENT_SIGNING_KEY"])
	if err != nil {
		d.t.Fatal(err)
	}
	return signer
}

// publish publishes events as a service does.
func (d *deployment) publish(service string, topic event.Topic, events ...event.Event) {
	d.t.Helper()
	client := d.redis.as(service)
	defer client.Close()
	for _, e := range events {
		if err := bus.NewSigningPublisher(client, d.signer(service)).Publish(string(topic), testkit.Message(d.t, e)); err != nil {
			d.t.Fatal(err)
		}
	}
}

// forgeriesBy returns what a service could add to a stream with the key that it has, by the
// reason why it is refused.
func (d *deployment) forgeriesBy(writer string, topic event.Topic, of victim) map[string]*message.Message {
	d.t.Helper()
	deleted := func() event.Event { return testkit.NewEvent(d.t.Context(), of.userID, event.UserDeleted{}) }
	revoked := func() event.Event {
		e := testkit.NewEvent(d.t.Context(), of.userID, event.SessionRevoked{SessionID: of.sessionID})
		e.OccurredAt = future
		return e
	}
	found := map[string]*message.Message{
		"unsigned: deletion": testkit.Message(d.t, deleted()), "unsigned: revocation of 2099": testkit.Message(d.t, revoked()),
	}
	if !slices.Contains(event.Producers(), writer) {
		return found // It has no key.
	}
	own := d.signer(writer)
	signed := func(e event.Event, on event.Topic) *message.Message {
		m := testkit.Message(d.t, e)
		m.Metadata.Set(bus.KeyIDKey, own.KeyID())
		m.Metadata.Set(bus.SignatureKey, own.Sign(on, e.ID, e.Name, m.Payload))
		return m
	}
	if writer != "auth-service" {
		mine := deleted()
		mine.Producer = writer
		found["forged: another's name"] = signed(deleted(), topic)
		found["forged: revocation of 2099"] = signed(revoked(), topic)
		found["wrong producer: deletion"] = signed(mine, topic)
		return found
	}
	elsewhere := event.Audit
	if topic == event.Audit {
		elsewhere = event.User
	}
	found["forged: of another stream"] = signed(deleted(), elsewhere)
	return found
}

// addAs adds an entry as the Redis user of a service. It reports whether Redis let it.
func (d *deployment) addAs(writer string, topic event.Topic, m *message.Message) bool {
	d.t.Helper()
	client := d.redis.as(writer)
	defer client.Close()
	err := bus.NewPublisher(client).Publish(string(topic), m)
	if err != nil && !refused(err) {
		d.t.Fatal(err)
	}
	return err == nil
}

// wantDeadLetters waits until the dead letters of a service are these events, and checks the
// beginnings of their reasons.
func (c *client) wantDeadLetters(service string, want map[string]string) {
	c.t.Helper()
	path := "/api/v1/" + strings.TrimSuffix(service, "-service") + "/dead-letters?limit=100"
	testkit.Eventually(c.t, func() error {
		var found []struct{ EventID, Reason string }
		if c.do(http.StatusOK, "GET "+path, nil, &found); len(found) != len(want) {
			return fmt.Errorf("%s has %d dead letters, want %d", service, len(found), len(want))
		}
		for _, d := range found {
			if reason, ok := want[d.EventID]; !ok || !strings.HasPrefix(d.Reason, reason) {
				c.t.Errorf("%s: dead letter %+v, want the reason %q", service, d, reason)
			}
		}
		return nil
	})
}

var userEventsRefused = regexp.MustCompile(`(?m)^headgate_event_signatures_total\{result="(?:unsigned|forged|wrong_producer)",topic="user-events"\} (\d+)$`)

// wantUserEventsRefused waits until a service that follows the user stream has refused at least n
// events.
func (d *deployment) wantUserEventsRefused(service string, n int) {
	d.t.Helper()
	testkit.Eventually(d.t, func() error {
		sum := 0
		for _, sample := range userEventsRefused.FindAllStringSubmatch(d.metrics(service), -1) {
			value, err := strconv.Atoi(sample[1])
			if err != nil {
				return err
			}
			sum += value
		}
		if sum < n {
			return fmt.Errorf("%s has refused %d events, want at least %d", service, sum, n)
		}
		return nil
	})
}

// TestSEC119EmptiedStreamLosesNothing is SEC-119: email-service may add entries to the audit
// stream, so Redis lets it empty the stream while audit-service has not read it. The trim is
// logged, and everything that was published is published again, once each in the log.
func TestSEC119EmptiedStreamLosesNothing(t *testing.T) {
	t.Parallel()
	d := startDeployment(t, "RECONCILE_INTERVAL=1s")
	admin, c := d.admin(), d.client()
	me := c.signup(newEmail())
	want := map[string]int{"user.signed_up": 1, "email.sent": 1}
	admin.wantAudit(me.ID, want)
	testkit.Eventually(t, func() error {
		others := d.emptyUnreadStream(c)
		want["user.profile_updated"] += 3
		d.wantEverythingRecorded()
		admin.wantAudit(others, map[string]int{"user.signed_up": 1, "email.sent": 1})
		admin.wantAudit(me.ID, want)
		// It looks every 15 s, and cannot tell before it has looked once.
		if d.logs["audit-service"].Count("stream trimmed by someone else") == 0 {
			return errors.New("the trim was not logged")
		}
		return nil
	})
	testkit.Eventually(t, func() error {
		if out, err := d.command("audit-service", "gaps"); err != nil || out != "" {
			return fmt.Errorf("gaps = %w\n%s", err, out)
		}
		return nil
	})
}

// emptyUnreadStream stops audit-service for a moment, makes auth-, user- and email-service
// publish, and removes what they published as email-service's Redis user. It returns the
// user who signed up meanwhile.
func (d *deployment) emptyUnreadStream(c *client) (userID string) {
	d.t.Helper()
	ctx, topic := d.t.Context(), string(event.Audit)
	operator, email := d.redis.as(redisserver.Operator), d.redis.as("email-service")
	defer operator.Close()
	defer email.Close()
	d.signal("audit-service", syscall.SIGSTOP)
	defer d.signal("audit-service", syscall.SIGCONT)
	groups, err := operator.XInfoGroups(ctx, topic).Result()
	if err != nil {
		d.t.Fatal(err)
	}
	for range 3 {
		c.do(http.StatusOK, "PATCH /api/v1/user/me", object{"bio": newEmail()}, nil)
	}
	userID = d.client().signup(newEmail()).ID
	testkit.Eventually(d.t, func() error { // the changes, the sign-up and its mail
		unread, err := operator.XRange(ctx, topic, "("+groups[0].LastDeliveredID, "+").Result()
		if err != nil || len(unread) < 5 {
			return fmt.Errorf("%d entries are unread, %w, want 5", len(unread), err)
		}
		return nil
	})
	if err := email.Do(ctx, "XADD", topic, "MAXLEN", 0, "*", "a", "b").Err(); err != nil {
		d.t.Fatalf("email-service may not empty the stream, as SECURITY.md says: %v", err)
	}
	if n, err := operator.XLen(ctx, topic).Result(); err != nil || n > 0 {
		d.t.Fatalf("%d entries are left, %v", n, err)
	}
	return userID
}

// wantEverythingRecorded waits until the audit log has every event for it that any service
// has committed by now.
func (d *deployment) wantEverythingRecorded() {
	d.t.Helper()
	log := d.database("audit-service")
	for _, service := range event.Audit.Producers() {
		rows, err := d.database(service).Query(d.t.Context(), `SELECT event_id FROM outbox WHERE topic = $1`, event.Audit)
		if err != nil {
			d.t.Fatal(err)
		}
		committed, err := pgx.CollectRows(rows, pgx.RowTo[[16]byte])
		if err != nil || len(committed) == 0 {
			d.t.Fatalf("%s has committed %d events, %v", service, len(committed), err)
		}
		testkit.Eventually(d.t, func() error {
			var recorded int
			if err := log.QueryRow(d.t.Context(), `SELECT count(*) FROM events WHERE id = ANY ($1)`, committed).Scan(&recorded); err != nil || recorded < len(committed) {
				return fmt.Errorf("the log has %d of %d events of %s, %w", recorded, len(committed), service, err)
			}
			return nil
		})
	}
}

// TestSEC118OthersKeys is SEC-118: no service can write what another says of its events: its
// watermark, its known numbers, and what a consumer has consumed or requests.
func TestSEC118OthersKeys(t *testing.T) {
	t.Parallel()
	server := startDeployedRedis(t, testPasswords())
	for _, topic := range event.Topics() {
		for _, producer := range topic.Producers() {
			for _, writer := range []string{"auth-service", "user-service", "email-service", "audit-service", "gateway"} {
				client := server.as(writer)
				consumes := topic.Groups()[0] == writer
				for name, tc := range map[string]struct {
					err error
					may bool
				}{
					"watermark":          {client.Set(t.Context(), "watermark:published:{"+string(topic)+"}:"+producer, "{}", 0).Err(), writer == producer},
					"known number":       {client.ZAdd(t.Context(), "published:{"+string(topic)+"}:"+producer, redis.Z{Member: "m", Score: 1}).Err(), writer == producer},
					"consumed watermark": {client.HSet(t.Context(), "watermark:consumed:{"+string(topic)+"}", "g", "{}").Err(), consumes},
					"request":            {client.HSet(t.Context(), "republish:requested:"+string(topic)+":"+producer, "g", "{}").Err(), consumes},
				} {
					if got := !refused(tc.err); got != tc.may {
						t.Errorf("%s may write the %s of %s on %s: %v, want %v (%v)", writer, name, producer, topic, got, tc.may, tc.err)
					}
				}
				client.Close()
			}
		}
	}
}
