package api_test

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/services/gateway/internal/api"
)

// waitForReports waits until all reports of exceeded limits have been delivered, and returns
// their number.
func (g *gateway) waitForReports() int {
	g.t.Helper()
	// The report about another client is the last in the queue.
	const last = "198.51.100.9"
	for range 2 {
		g.do("POST", "/api/v1/auth/signup", "{}", "X-Forwarded-For", last)
	}
	testkit.Eventually(g.t, func() error {
		if r, _, _ := g.upstream.got(); r.URL.Path != event.RateLimitsPath+"/exceeded" || r.Header.Get("X-Forwarded-For") != last {
			return errors.New("the last report was not delivered")
		}
		return nil
	})
	n := 0
	for _, request := range g.upstream.since(0) {
		if request == "POST "+event.RateLimitsPath+"/exceeded" {
			n++
		}
	}
	return n - 1
}

// heap returns how many bytes are in use.
func heap() uint64 {
	runtime.GC()
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.HeapAlloc
}

// A stranger can send any number of addresses of any length. They cost neither memory nor
// audit records. It does not run in parallel, because it measures the memory.
func TestSEC110LongAddressesCostNothing(t *testing.T) {
	g := newGatewayTrusting(t, here, testkit.Redis(t), api.RateLimits{Login: rate(5), LoginIP: rate(40), Refresh: rate(5), RefreshIP: rate(40), SignupIP: rate(1)})
	g.login("ann@example.com") // Connections and buffers exist from here on.
	before := heap()
	long := strings.Repeat("x", 60<<10)
	passed := 0
	for i := range 2_500 {
		email := fmt.Sprintf("%d%s@example.com", i, long)
		if i%5 == 0 {
			email = fmt.Sprintf("%d%s@example.com", i, long[:200])
		}
		if g.login(email).status == 200 {
			passed++
		}
	}
	for i := range 250 {
		g.do("POST", "/api/v1/auth/refresh", fmt.Sprintf(`{"refreshToken":"%d%s"}`, i, long))
	}
	if passed > 40 {
		t.Errorf("%d logins passed, want at most 40", passed)
	}
	if n := g.waitForReports(); n > 4 {
		t.Errorf("%d reports of exceeded limits, want one for each limit", n)
	}
	if after := heap(); after > before+8<<20 {
		t.Errorf("the heap grew by %d MB, want at most 8 MB", (after-before)>>20)
	}
	runtime.KeepAlive(g)
}

// The limit that was exceeded is reported once in its window, not once for each spelling of
// what other limits count.
func TestSEC110ExceededLimitIsReportedOnce(t *testing.T) {
	t.Parallel()
	g := newGatewayTrusting(t, here, testkit.Redis(t), api.RateLimits{Login: rate(2), LoginIP: rate(10), SignupIP: rate(1)})
	for i := range 50 {
		g.login(fmt.Sprintf("%d@example.com", i))
	}
	if n := g.waitForReports(); n != 1 {
		t.Errorf("%d reports of the limit of one address, want 1", n)
	}
}
