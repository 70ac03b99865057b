package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

const (
	edgeWarm  = 500 * time.Millisecond
	edgeLasts = 2200 * time.Millisecond
	edgeShort = 1500 * time.Millisecond
)

// edgeLine is a proxy in front of the service, and its load.
type edgeLine struct {
	name string
	to   server
	loadOptions
}

// cost is what a request costs a proxy.
type cost struct {
	rate    float64 // requests a second
	cpu     float64 // microseconds
	mallocs float64
}

// edge compares the gateway with a proxy that does nothing else, with nginx, and with itself
// without some of its features.
func (b *bench) edge(ctx context.Context) error {
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	lines, err := e.lines(ctx)
	if err != nil {
		return err
	}
	costs, err := e.compare(ctx, lines)
	if err != nil {
		return err
	}
	rates := func(name, variant, of string, goal float64) {
		got, base := costs[name].rate, costs[of].rate
		switch {
		case base == 0 || got == 0: // nginx is not installed.
		case goal > 0:
			b.report.atLeast("edge", variant, perSecond(got), got/base, goal)
		default:
			b.report.compared("edge", variant, perSecond(got), got/base)
		}
	}
	b.report.figure("edge", "httputil.ReverseProxy, tuned, nothing else", perSecond(costs["bare"].rate))
	rates("bare-gc", "the same with the gateway's GOGC=400 / that", "bare", 0)
	rates("nginx", "nginx / ReverseProxy", "bare", 0)
	rates("gateway", fmt.Sprintf("gateway, %d users / ReverseProxy", usersFew), "bare", 1.2)
	rates("gateway", "the same / ReverseProxy with GOGC=400", "bare-gc", 0)
	rates("gateway", "gateway / nginx", "nginx", 0.45)
	rates("many", fmt.Sprintf("gateway, %d users / %d", usersMany, usersFew), "gateway", 0)
	rates("unlimited", "gateway, general limits off / everything on", "gateway", 0)
	rates("quiet", "gateway, no access log / everything on", "gateway", 0)
	rates("public", "gateway, public path, no token / everything on", "gateway", 0)
	for _, line := range lines {
		b.report.figure("edge", "CPU of a request: "+line.name, fmt.Sprintf("%.1f µs", costs[line.name].cpu))
	}
	b.report.figure("edge", "gateway, objects allocated for a request", fmt.Sprintf("%.1f", costs["gateway"].mallocs))
	return nil
}

// lines starts the proxies for benchmark edge.
func (e *edge) lines(ctx context.Context) ([]edgeLine, error) {
	lines, err := e.peers(ctx, "edge")
	if err != nil {
		return nil, err
	}
	bare, err := e.startBare(ctx, "GOGC=400")
	if err != nil {
		return nil, err
	}
	few := lines[0].loadOptions
	gateway := lines[len(lines)-1].to
	many, public := few, few
	many.tokens, public.tokens, public.path = e.many, "", "/api/v1/auth/x"
	lines = append(lines, edgeLine{"bare-gc", bare, few}, edgeLine{"public", gateway, public})
	// Each variant has its own process, so that its caches do not affect another.
	for _, one := range []struct {
		name     string
		load     loadOptions
		settings []string
	}{
		{"many", many, nil},
		{"unlimited", few, []string{"GENERAL_RATE_LIMIT=off", "GENERAL_IP_RATE_LIMIT=off"}},
		{"quiet", few, []string{"LOG_LEVEL=warn"}},
	} {
		s, err := e.startGateway(ctx, "gateway-"+one.name, one.settings...)
		if err != nil {
			return nil, err
		}
		lines = append(lines, edgeLine{one.name, s, one.load})
	}
	return lines, nil
}

// peers starts the proxy that does nothing else, nginx, and the gateway, in this order. If
// nginx is not installed, the report of the benchmark says so.
func (e *edge) peers(ctx context.Context, benchmark string) ([]edgeLine, error) {
	few := loadOptions{path: userPath, tokens: e.few, connections: 32, lasts: edgeLasts}
	bare, err := e.startBare(ctx)
	if err != nil {
		return nil, err
	}
	lines := []edgeLine{{"bare", bare, few}}
	nginx, err := e.startNginx(ctx)
	switch {
	case errors.Is(err, errNoNginx):
		e.b.report.figure(benchmark, "nginx", "skipped: no nginx")
	case err != nil:
		return nil, err
	default:
		lines = append(lines, edgeLine{"nginx", nginx, few})
	}
	gateway, err := e.startGateway(ctx, "gateway")
	if err != nil {
		return nil, err
	}
	return append(lines, edgeLine{"gateway", gateway, few}), nil
}

// compare returns the median cost of each line under full load.
func (e *edge) compare(ctx context.Context, lines []edgeLine) (map[string]cost, error) {
	if err := e.warm(ctx, lines); err != nil {
		return nil, err
	}
	all := map[string][]cost{}
	var variants []variant
	for _, line := range lines {
		variants = append(variants, variant{line.name, func(ctx context.Context) (float64, error) {
			c, err := e.saturate(ctx, line)
			all[line.name] = append(all[line.name], c)
			return c.rate, err
		}})
	}
	rates, err := e.b.alternate(ctx, variants...)
	if err != nil {
		return nil, err
	}
	medians := map[string]cost{}
	for name, costs := range all {
		medians[name] = cost{
			rate:    rates[name],
			cpu:     median(costs, func(c cost) float64 { return c.cpu }),
			mallocs: median(costs, func(c cost) float64 { return c.mallocs }),
		}
	}
	return medians, nil
}

func median[T any](all []T, figure func(T) float64) float64 {
	figures := make([]float64, len(all))
	for i, one := range all {
		figures[i] = figure(one)
	}
	slices.Sort(figures)
	return figures[len(figures)/2]
}

// warm opens connections, verifies tokens and lets leases grow before the measurement.
func (e *edge) warm(ctx context.Context, lines []edgeLine) error {
	for _, line := range lines {
		line.lasts = edgeWarm
		if _, err := e.saturate(ctx, line); err != nil {
			return fmt.Errorf("warm %s up: %w", line.name, err)
		}
	}
	return nil
}

func (e *edge) saturate(ctx context.Context, line edgeLine) (cost, error) {
	mallocs, err := line.to.mallocs(ctx)
	if err != nil {
		return cost{}, err
	}
	spent, err := line.to.cpu()
	if err != nil {
		return cost{}, err
	}
	r, err := e.load(ctx, line.to, line.loadOptions)
	if err == nil {
		err = r.only(200)
	}
	if err != nil {
		return cost{}, err
	}
	after, err := line.to.cpu()
	if err != nil {
		return cost{}, err
	}
	mallocsAfter, err := line.to.mallocs(ctx)
	n := float64(r.Requests)
	return cost{
		rate: n / r.Seconds, cpu: float64((after - spent).Microseconds()) / n, mallocs: (mallocsAfter - mallocs) / n,
	}, err
}

// edgeHalf measures the latency at half of the maximum rate of the proxy that does nothing
// else.
func (b *bench) edgeHalf(ctx context.Context) error {
	e, err := b.startEdge(ctx)
	defer func() { e.running.stop() }()
	if err != nil {
		return err
	}
	lines, err := e.peers(ctx, "edge-half")
	if err != nil {
		return err
	}
	if err := e.warm(ctx, lines); err != nil {
		return err
	}
	bare := lines[0]
	bare.lasts = edgeShort
	full, err := b.alternate(ctx, variant{bare.name, func(ctx context.Context) (float64, error) {
		c, err := e.saturate(ctx, bare)
		return c.rate, err
	}})
	if err != nil {
		return err
	}
	half := full[bare.name] / 2
	var variants []variant
	for _, line := range lines {
		line.rate, line.lasts = half, edgeShort
		variants = append(variants, variant{line.name, func(ctx context.Context) (float64, error) {
			r, err := e.load(ctx, line.to, line.loadOptions)
			return float64(r.P99.Microseconds()) / 1000, errors.Join(err, r.only(200))
		}})
	}
	medians, err := b.alternate(ctx, variants...)
	if err != nil {
		return err
	}
	for _, line := range lines {
		p99 := medians[line.name]
		b.report.compared("edge-half", fmt.Sprintf("%s, p99 at %.0f/s / bare", line.name, half), fmt.Sprintf("%.2f ms", p99), p99/medians["bare"])
	}
	return nil
}
