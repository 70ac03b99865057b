package api_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/testkit/localserver"
	"github.com/headgate/headgate/services/gateway/internal/api"
	"github.com/headgate/headgate/services/gateway/internal/limit"
)

func rate(n int) limit.Rate { return limit.Rate{Requests: n, Window: 15 * time.Minute} }

func (g *gateway) login(email string) answer {
	g.t.Helper()
	return g.do("POST", "/api/v1/auth/login", fmt.Sprintf(`{"email":%q,"password":"x"}`, email))
}

func TestLoginLimit(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{Login: rate(5), LoginIP: rate(8)})
	for i := range 5 {
		a := g.login([]string{"ann@example.com", " ANN@example.com "}[i%2])
		if a.status != 200 || a.header.Get("RateLimit") != fmt.Sprintf(`"login";r=%d;t=900`, 4-i) && i == 0 || a.header.Get("RateLimit-Policy") != `"login";q=5;w=900` ||
			a.header.Get("X-RateLimit-Limit") != "5" || a.header.Get("X-RateLimit-Remaining") != strconv.Itoa(4-i) {
			t.Errorf("login %d = %d %v", i+1, a.status, a.header)
		}
	}
	a := g.login("ann@example.com")
	if a.status != 429 || a.Code != "rate_limited" || a.header.Get("Retry-After") == "" || a.header.Get("X-RateLimit-Remaining") != "0" || a.header.Get("X-RateLimit-Reset") == "" {
		t.Errorf("login 6 = %d %s %v", a.status, a.Code, a.header)
	}
	for i := range 3 {
		if a := g.login(fmt.Sprint("user", i, "@example.com")); a.status != 200 {
			t.Errorf("another account's login %d = %d", i+1, a.status)
		}
	}
	if a := g.login("fresh@example.com"); a.status != 429 || !strings.HasPrefix(a.header.Get("RateLimit"), `"login-ip"`) {
		t.Errorf("SEC-32: login 9 of one address = %d %s", a.status, a.header.Get("RateLimit"))
	}
}

func TestRefreshAndSignupLimits(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{Refresh: rate(2), SignupIP: rate(2)})
	refresh := func(session string) int {
		payload := base64.RawURLEncoding.EncodeToString(fmt.Appendf(nil, `{"sid":%q,"gen":1}`, session))
		return g.do("POST", "/api/v1/auth/refresh", fmt.Sprintf(`{"refreshToken":"h.%s.s"}`, payload)).status
	}
	if got := []int{refresh("a"), refresh("a"), refresh("a"), refresh("b")}; !slices.Equal(got, []int{200, 200, 429, 200}) {
		t.Errorf("refreshes = %v", got)
	}
	signup := func() int { return g.do("POST", "/api/v1/auth/signup", "{}").status }
	if got := []int{signup(), signup(), signup()}; !slices.Equal(got, []int{200, 200, 429}) {
		t.Errorf("sign-ups = %v", got)
	}
}

func TestGeneralLimitIsByUserOrAddress(t *testing.T) {
	t.Parallel()
	g := newGateway(t, testkit.Redis(t), api.Limits{General: rate(2)})
	one, two := g.bearer(), g.bearer()
	get := func(bearer string) int { return g.do("GET", "/api/v1/user/me", "", "Authorization", bearer).status }
	if got := []int{get(one), get(one), get(one), get(two)}; !slices.Equal(got, []int{200, 200, 429, 200}) {
		t.Errorf("= %v", got)
	}
}

// TestLimitsAreExact sends a hundred at once through two gateways.
func TestLimitsAreExact(t *testing.T) {
	t.Parallel()
	client := testkit.Redis(t)
	one, two := newGateway(t, client, api.Limits{Login: rate(5)}), newGateway(t, client, api.Limits{Login: rate(5)})
	statuses := make(chan int, 100)
	var wg sync.WaitGroup
	for i := range cap(statuses) {
		wg.Go(func() { statuses <- []*gateway{one, two}[i%2].login("ann@example.com").status })
	}
	wg.Wait()
	close(statuses)
	count := map[int]int{}
	for status := range statuses {
		count[status]++
	}
	if count[200] != 5 || count[429] != 95 {
		t.Errorf("answers = %v, want 5 and 95", count)
	}
}

// TestLimitsWithoutRedis is SEC-33: the same limits, no failure, no long wait.
func TestLimitsWithoutRedis(t *testing.T) {
	t.Parallel()
	options := localserver.Options{Dir: filepath.Join(t.TempDir(), "redis"), Durable: true}
	server, err := localserver.StartRedis(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	g := newGateway(t, testkit.OpenRedis(t, server.URL, 200*time.Millisecond), api.Limits{Login: rate(5)})
	if a := g.login("ann@example.com"); a.status != 200 {
		t.Fatalf("login = %d", a.status)
	}
	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	count := map[int]int{}
	for range 20 {
		start := time.Now()
		count[g.login("bob@example.com").status]++
		if took := time.Since(start); took > time.Second {
			t.Errorf("a login took %s", took)
		}
	}
	if count[200] != 5 || count[429] != 15 {
		t.Errorf("answers = %v, want 5 and 15", count)
	}
	options.Port = server.Port
	if server, err = localserver.StartRedis(t.Context(), options); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := server.Stop(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	testkit.Eventually(t, 10*time.Second, func() error {
		// Ann used one before Redis went away; Redis remembers.
		a := g.login("ann@example.com")
		if a.header.Get("X-RateLimit-Remaining") == "4" {
			return fmt.Errorf("redis is not asked yet: %v", a.header)
		}
		return nil
	})
}
