package profile

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/headgate/headgate/pkg/service"
)

const (
	// sweepAge is how old what is swept must be. It is longer than any upload takes.
	sweepAge   = time.Hour
	sweepBatch = 200
	sweepCheck = time.Minute // how often an instance looks whether a sweep is due
)

// Swept says what a sweep has deleted.
type Swept struct {
	Unused   int // avatars that no profile has, because deleting them failed earlier
	Unlisted int // files that are not in the register, as after a restore of the database
}

// Sweep deletes the pictures of names that have been unused for an hour, and files as old whose
// names are not registered. It does not touch files whose names do not have the form of pictures.
// Several sweeps may run at the same time.
func (a *Avatars) Sweep(ctx context.Context) (swept Swept, err error) {
	before := a.profiles.now().Add(-sweepAge)
	for {
		names, err := a.register.UnusedAvatars(ctx, before, sweepBatch)
		if err != nil {
			return swept, err
		}
		if err := a.forget(ctx, names); err != nil {
			return swept, err
		}
		if swept.Unused += len(names); len(names) < sweepBatch {
			break
		}
	}
	err = a.blobs.List(ctx, before, func(keys []string) error {
		unlisted, err := a.unlisted(ctx, keys)
		if err != nil || len(unlisted) == 0 {
			return err
		}
		swept.Unlisted += len(unlisted)
		return a.blobs.Delete(ctx, unlisted)
	})
	return swept, err
}

// unlisted returns the keys of pictures that are not in the register.
func (a *Avatars) unlisted(ctx context.Context, keys []string) ([]string, error) {
	var unlisted []string
	byName := map[string][]string{}
	for _, key := range keys {
		switch parts := keyForm.FindStringSubmatch(key); {
		case parts == nil:
		case parts[3] != "": // an unfinished file, which no profile has
			unlisted = append(unlisted, key)
		default:
			name := parts[1] + parts[2]
			byName[name] = append(byName[name], key)
		}
	}
	registered, err := a.register.RegisteredAvatars(ctx, slices.Collect(maps.Keys(byName)))
	if err != nil {
		return nil, err
	}
	for _, name := range registered {
		delete(byName, name)
	}
	for _, rest := range byName {
		unlisted = append(unlisted, rest...)
	}
	return unlisted, nil
}

// Sweeper sweeps avatars regularly. It is a service.Runner. Every instance may run one: of all of
// them, one sweeps at a time.
type Sweeper struct {
	avatars  *Avatars
	interval time.Duration
	log      *slog.Logger
	deleted  *prometheus.CounterVec
	finished prometheus.Gauge
}

// NewSweeper returns a sweeper that sweeps once in an interval.
func NewSweeper(avatars *Avatars, interval time.Duration, log *slog.Logger, reg prometheus.Registerer) *Sweeper {
	s := &Sweeper{
		avatars: avatars, interval: interval, log: log,
		deleted: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "headgate_avatar_sweep_deleted_total", Help: "Deleted by the sweep of avatars: unused avatars, and files that are not in the register.",
		}, []string{"what"}),
		finished: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "headgate_avatar_sweep_finished_timestamp_seconds", Help: "When this instance last finished a sweep of avatars. Instances take turns.",
		}),
	}
	reg.MustRegister(s.deleted, s.finished)
	return s
}

// Run implements service.Runner.
func (s *Sweeper) Run(ctx context.Context) error {
	tick := time.NewTicker(min(sweepCheck, s.interval))
	defer tick.Stop()
	outage := service.NewOutage(service.OutageConfig{
		Log: s.log, Failing: "avatar sweep failed; retrying after the interval", Over: "avatar sweep works again",
		Quiet: s.interval,
	})
	for {
		if err := s.once(ctx); ctx.Err() == nil {
			outage.Record(ctx, "", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// once sweeps if a sweep is due and no other instance has begun it.
func (s *Sweeper) once(ctx context.Context) error {
	now := s.avatars.profiles.now()
	due, err := s.avatars.register.ClaimSweep(ctx, now, s.interval)
	if err != nil || !due {
		return err
	}
	swept, err := s.avatars.Sweep(ctx)
	s.deleted.WithLabelValues("avatar").Add(float64(swept.Unused))
	s.deleted.WithLabelValues("file").Add(float64(swept.Unlisted))
	if err != nil {
		return err
	}
	s.finished.Set(float64(now.Unix()))
	if swept != (Swept{}) {
		s.log.InfoContext(ctx, "avatars swept", "unused", swept.Unused, "unlisted", swept.Unlisted)
	}
	return nil
}
