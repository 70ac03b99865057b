package realtime_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/testkit"
	"github.com/headgate/headgate/pkg/token"
	"github.com/headgate/headgate/services/gateway/internal/realtime"
)

// TestSEC157SlowClientsAreDropped: a client that does not read loses its connection, and the
// others get everything.
func TestSEC157SlowClientsAreDropped(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	slow, fast := f.open("ann", "s", nil), f.open("ann", "s", nil)
	const sent = 200
	got := make(chan int)
	go func() {
		n := 0
		for ; n < sent; n++ {
			<-fast.Messages()
		}
		got <- n
	}()
	for i := range sent {
		f.updated("ann", time.Duration(i)*time.Second)
		testkit.Eventually(t, func() error {
			if len(fast.Messages()) > 0 {
				return errors.New("not read yet")
			}
			return nil
		})
	}
	if n := <-got; n != sent {
		t.Errorf("the fast client got %d messages", n)
	}
	if why := slow.Why(); why == nil || why.Code != 4408 || why.Reason != "too_slow" {
		t.Errorf("the slow client: %v", why)
	}
	if fast.Why() != nil {
		t.Errorf("the fast client: %v", fast.Why())
	}
	if len(slow.Messages()) > 64 {
		t.Errorf("%d messages wait for the slow client", len(slow.Messages()))
	}
}

func TestSEC157Limits(t *testing.T) {
	t.Parallel()
	f := newFed(t)
	var leave []func()
	for i := range 100 {
		left, err := f.Enter(fmt.Sprint("net", i%2))
		if err != nil {
			t.Fatal(err)
		}
		leave = append(leave, left)
	}
	if _, err := f.Enter("net2"); !errors.Is(err, realtime.ErrFull) {
		t.Errorf("client 101: %v", err)
	}
	for _, left := range leave[:40] {
		left()
	}
	for range 30 { // 30 of net0 are left
		if _, err := f.Enter("net0"); err != nil {
			t.Errorf("after some have gone: %v", err)
		}
	}
	if _, err := f.Enter("net0"); !errors.Is(err, realtime.ErrTooMany) {
		t.Errorf("client 61 of a network: %v", err)
	}
	for range 50 {
		f.open("ann", "s", nil)
	}
	refused := func() error {
		_, err := f.Open(t.Context(), realtime.Client{Identity: token.Identity{UserID: "ann"}, Transport: "websocket"})
		return err
	}
	if err := refused(); !errors.Is(err, realtime.ErrTooMany) {
		t.Errorf("connection 51 of a user: %v", err)
	}
	f.open("bob", "s", nil)
	var refusals strings.Builder
	families, err := f.metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == "headgate_realtime_refused_total" {
			fmt.Fprint(&refusals, family)
		}
	}
	for _, reason := range []string{"total", "network", "user"} {
		if !strings.Contains(refusals.String(), `value:"`+reason+`"`) {
			t.Errorf("refusals by the limit %s are not counted: %s", reason, &refusals)
		}
	}
}

func gauge(t *testing.T, reg *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, family := range families {
		if family.GetName() == name {
			for _, m := range family.GetMetric() {
				sum += m.GetGauge().GetValue()
			}
		}
	}
	return sum
}
