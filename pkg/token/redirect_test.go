package token_test

import (
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// Keys, revocations and accounts come from the configured address alone, not from where it
// redirects, which must not see anybody's token either.
func TestSEC133NoRedirect(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer elsewhere.Close()
	redirect := httptest.NewServer(http.RedirectHandler(elsewhere.URL, http.StatusFound))
	defer redirect.Close()
	cfg := token.Remote{JWKSURL: redirect.URL + "/.well-known/jwks.json"}
	if _, err := token.NewJWKS(cfg, testkit.Log(t), time.Now).Key(t.Context(), "k"); err == nil {
		t.Error("a key was found")
	}
	if _, err := token.RemoteSnapshots(cfg)(t.Context(), time.Time{}); err == nil {
		t.Error("revocations were found")
	}
	if _, err := token.RemoteAccounts(cfg)(t.Context(), "a token"); err == nil {
		t.Error("an account was found")
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the other address was asked %d times", n)
	}
}
