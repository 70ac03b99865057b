package api

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestSEC45ConnectionOptions: a client that declares thousands of headers hop-by-hop, and
// sends thousands, costs little more than one that only sends them.
func TestSEC45ConnectionOptions(t *testing.T) {
	t.Parallel()
	// fastest returns the shortest of a few times, which other load does not change.
	fastest := func(connection string) time.Duration {
		r := (&http.Request{Header: http.Header{"Connection": {connection}}}).WithContext(t.Context())
		for i := range 1000 {
			r.Header[fmt.Sprintf("A%03d", i)] = []string{""}
		}
		best := time.Hour
		for range 10 {
			began := time.Now()
			requestEdit(r).Apply(r.Header)
			best = min(best, time.Since(began))
		}
		return best
	}
	one, many := fastest("zzzz"), fastest(strings.Repeat("zzzz,", 2000)+"zzzz")
	if many > 20*one {
		t.Errorf("2001 options take %s, one takes %s", many, one)
	}
}
