package signing_test

import (
	"errors"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/auth-service/internal/signing"
	"github.com/headgate/headgate/services/auth-service/internal/store"
)

func TestMain(m *testing.M) { testkit.Main(m) }

// fixture is a keyring with a clock that the test advances.
type fixture struct {
	*signing.Keyring
	t   *testing.T
	now time.Time
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{t: t, now: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)}
	keys := store.NewKeys(testkit.Database(t, outbox.Schema(), store.Schema()), outbox.New("auth-service"), testkit.Sealer(t, "0123456789abcdefghijklmnopqrstuv-tests"))
	var err error
	if f.Keyring, err = signing.OpenKeyring(t.Context(), keys, func() time.Time { return f.now }); err != nil {
		t.Fatal(err)
	}
	return f
}

// wantStates checks the states of keys by id.
func (f *fixture) wantStates(want map[string]signing.State) {
	f.t.Helper()
	got := map[string]signing.State{}
	for _, key := range f.List() {
		got[key.ID] = key.State
	}
	for id, state := range want {
		if got[id] != state {
			f.t.Errorf("key %s is %q, want %q", id, got[id], state)
		}
	}
	if len(got) != len(want) {
		f.t.Errorf("states = %v, want %v", got, want)
	}
}

func TestKeyStates(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	const lifetime = 15 * time.Minute
	first := f.List()[0].ID
	f.wantStates(map[string]signing.State{first: signing.Active})
	if err := f.Retire(t.Context(), first, lifetime); !errors.Is(err, signing.ErrKeyActive) {
		t.Errorf("Retire of the active key = %v, want ErrKeyActive", err)
	}
	second, err := f.Rotate(t.Context(), signing.EdDSA, signing.ActivationDelay)
	if err != nil {
		t.Fatal(err)
	}
	f.wantStates(map[string]signing.State{first: signing.Active, second.ID: signing.Scheduled})

	f.now = f.now.Add(signing.ActivationDelay)
	f.wantStates(map[string]signing.State{first: signing.Retiring, second.ID: signing.Active})
	if err := f.Retire(t.Context(), first, lifetime); !errors.Is(err, signing.ErrKeyInUse) {
		t.Errorf("Retire while tokens are valid = %v, want ErrKeyInUse", err)
	}
	f.now = f.now.Add(lifetime + time.Minute)
	if err := f.Retire(t.Context(), first, lifetime); err != nil {
		t.Errorf("Retire after the last token has expired = %v", err)
	}
	f.wantStates(map[string]signing.State{second.ID: signing.Active})
	if err := f.Retire(t.Context(), first, lifetime); !errors.Is(err, signing.ErrUnknownKey) {
		t.Errorf("Retire of a retired key = %v, want ErrUnknownKey", err)
	}
}

// A key that has never signed can be retired at once.
func TestRetireScheduledKey(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	scheduled, err := f.Rotate(t.Context(), signing.ES256, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Retire(t.Context(), scheduled.ID, time.Hour); err != nil {
		t.Errorf("Retire = %v", err)
	}
	if _, err := f.Rotate(t.Context(), "RS256", time.Hour); err == nil {
		t.Error("Rotate to RS256 succeeds")
	}
}

func TestIssuer(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	issuer := signing.NewIssuer(testkit.Expected, f.Keyring, testkit.Keys(t, "0123456789abcdefghijklmnopqrstuv"), 15*time.Minute)
	claims := signing.Claims{
		AccountID: uuid.NewString(), Role: "user", Email: "ann@example.com", Name: "Ann",
		SessionID: uuid.NewString(), Generation: 3, AuthenticatedAt: f.now, RotatedAt: f.now, ExpiresAt: f.now.Add(time.Hour),
	}
	tokens, err := issuer.Issue(claims, f.now)
	if err != nil {
		t.Fatal(err)
	}
	again, err := issuer.Issue(claims, f.now.Add(time.Minute))
	if err != nil || again.Refresh != tokens.Refresh || again.Access == tokens.Access {
		t.Errorf("Issue of the same claims = %+v, %v, want the same refresh token and another access token", again, err)
	}
	want := signing.RefreshClaims{AccountID: claims.AccountID, SessionID: claims.SessionID, Generation: 3}
	if got, err := issuer.VerifyRefresh(tokens.Refresh, f.now.Add(59*time.Minute)); err != nil || got != want {
		t.Errorf("VerifyRefresh = %+v, %v, want %+v", got, err, want)
	}
	if _, err := issuer.VerifyRefresh(tokens.Refresh, f.now.Add(61*time.Minute)); !errors.Is(err, signing.ErrRefreshExpired) {
		t.Errorf("VerifyRefresh of an expired token = %v, want ErrRefreshExpired", err)
	}
	if got, err := issuer.VerifyExpiredRefresh(tokens.Refresh); err != nil || got != want {
		t.Errorf("VerifyExpiredRefresh = %+v, %v, want %+v", got, err, want)
	}
	unsigned, err := jwt.New(jwt.SigningMethodNone).SignedString(jwt.UnsafeAllowNoneSignatureType)
	if err != nil {
		t.Fatal(err)
	}
	other, err := signing.NewIssuer(testkit.Expected, f.Keyring, testkit.Keys(t, "another one of 32 characters ....."), time.Minute).Issue(claims, f.now)
	if err != nil {
		t.Fatal(err)
	}
	for name, raw := range map[string]string{
		"empty": "", "access token": tokens.Access, "no signature": unsigned, "another secret": other.Refresh, "changed": tokens.Refresh + "x",
	} {
		if _, err := issuer.VerifyRefresh(raw, f.now); !errors.Is(err, signing.ErrRefreshInvalid) {
			t.Errorf("%s: VerifyRefresh = %v, want ErrRefreshInvalid", name, err)
		}
	}
}

// A rotation of REFRESH_TOKEN_SECRET refuses nobody: tokens of a listed secret, and of the
// only one before there were lists, are accepted, and new ones are signed with the first.
func TestSEC126RefreshSecretsRotate(t *testing.T) {
	t.Parallel()
	const before, after = "0123456789abcdefghijklmnopqrstuv", "ABCDEFGHIJKLMNOPQRSTUVWXYZ012345"
	f := newFixture(t)
	issuer := func(keys string) *signing.Issuer {
		return signing.NewIssuer(testkit.Expected, f.Keyring, testkit.Keys(t, keys), time.Minute)
	}
	claims := signing.Claims{
		AccountID: uuid.NewString(), SessionID: uuid.NewString(), Generation: 1, AuthenticatedAt: f.now, RotatedAt: f.now, ExpiresAt: f.now.Add(time.Hour),
	}
	refresh := func(i *signing.Issuer) string {
		tokens, err := i.Issue(claims, f.now)
		if err != nil {
			t.Fatal(err)
		}
		return tokens.Refresh
	}
	single, first, gone := issuer(before), issuer("b:"+after+",default:"+before), issuer("b:"+after)
	unnamed := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{
		"iss": testkit.Expected.Issuer, "sub": claims.AccountID, "sid": claims.SessionID, "gen": 1, "exp": claims.ExpiresAt.Unix(),
	})
	unnamed.Header["typ"] = "refresh+jwt"
	withoutKid, err := unnamed.SignedString([]byte(before))
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		issuer *signing.Issuer
		token  string
		ok     bool
	}{
		"the previous secret, listed":      {first, refresh(single), true},
		"of a release without key ids":     {first, withoutKid, true},
		"the new secret":                   {gone, refresh(first), true},
		"the previous secret, not listed":  {gone, refresh(single), false},
		"without key ids, not listed":      {gone, withoutKid, false},
		"a replica that lacks the new one": {single, refresh(first), false},
	} {
		_, err := tc.issuer.VerifyRefresh(tc.token, f.now)
		if tc.ok && err != nil || !tc.ok && !errors.Is(err, signing.ErrRefreshInvalid) {
			t.Errorf("%s: VerifyRefresh = %v", name, err)
		}
	}
}
