package service

import (
	_ "embed"
	"runtime"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

//go:embed VERSION
var release string

// commit is set by the linker, see tools/commit.sh. It is empty in a plain go build.
var commit string

// Version returns the release, and the commit from which the program was built if that is
// known: v0.9.0+1f2e3d4c5b6a.
func Version() string {
	version := strings.TrimSpace(release)
	if commit != "" {
		version += "+" + commit
	}
	return version
}

// buildInfo returns a metric that is always 1 and has the version in its labels.
func buildInfo() prometheus.Collector {
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "headgate_build_info", Help: "The version of the running program. Always 1.",
		ConstLabels: prometheus.Labels{"version": Version(), "go": runtime.Version()},
	})
	info.Set(1)
	return info
}
