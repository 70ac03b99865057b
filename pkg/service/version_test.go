package service_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/service"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestVersion: a program that was built without a commit has the release, also in its metrics.
func TestVersion(t *testing.T) {
	t.Parallel()
	if version := service.Version(); !regexp.MustCompile(`^v\d+\.\d+\.\d+$`).MatchString(version) {
		t.Errorf("Version() = %q", version)
	}
	s := service.New("test", service.Common{}, testkit.Log(t))
	families, err := s.Metrics.Gather()
	if err != nil {
		t.Fatal(err)
	}
	found := ""
	for _, family := range families {
		if family.GetName() == "headgate_build_info" {
			found = family.String()
		}
	}
	if !strings.Contains(found, service.Version()) {
		t.Errorf("headgate_build_info = %q", found)
	}
}
