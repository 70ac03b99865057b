package token_test

import (
	"maps"
	"math"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
)

// TestMetrics: operators see how old the keys are, and how many signatures had to be
// checked.
func TestMetrics(t *testing.T) {
	t.Parallel()
	issuer, metrics, start := testkit.NewIssuer(t), prometheus.NewRegistry(), time.Now()
	var passed atomic.Int64
	now := func() time.Time { return start.Add(time.Duration(passed.Load())) }
	v := token.NewRemoteVerifier(token.Remote{JWKSURL: issuer.JWKSURL}, testkit.Expected, testkit.Log(t), metrics, now)
	testkit.Run(t, v)
	want := func(age, hits, misses float64) {
		t.Helper()
		families, err := metrics.Gather()
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]float64{}
		for _, family := range families {
			for _, m := range family.GetMetric() {
				name := family.GetName()
				if labels := m.GetLabel(); len(labels) > 0 {
					name = labels[0].GetValue()
				}
				got[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
		if wanted := map[string]float64{"headgate_jwks_age_seconds": age, "hit": hits, "miss": misses}; !maps.Equal(got, wanted) {
			t.Errorf("metrics = %v, want %v", got, wanted)
		}
	}
	want(math.Inf(1), 0, 0)
	raw := issuer.Token(token.Identity{})
	for range 3 {
		if _, err := v.Verify(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	}
	want(0, 2, 1)
	passed.Store(int64(20 * time.Second))
	want(20, 2, 1)
}
