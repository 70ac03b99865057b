package tests

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/event"
)

// TestProducersOfStreams is REL-93: the producers from which a consumer waits for a
// watermark are those that Redis lets publish on the stream and post one.
func TestProducersOfStreams(t *testing.T) {
	t.Parallel()
	acl, err := os.ReadFile(filepath.Join(root, "deploy/redis/users.acl"))
	if err != nil {
		t.Fatal(err)
	}
	allowed := map[string][]string{}
	for line := range bytes.Lines(acl) {
		user := strings.Fields(string(line))[1]
		for _, selector := range regexp.MustCompile(`\([^)]*\)`).FindAllString(string(line), -1) {
			rules := strings.Fields(strings.Trim(selector, "()"))
			for _, rule := range rules {
				if key, isKey := strings.CutPrefix(rule, "~"); isKey {
					for _, command := range []string{"+xadd", "+set"} {
						if slices.Contains(rules, command) {
							allowed[command+" "+key] = append(allowed[command+" "+key], user)
						}
					}
				}
			}
		}
	}
	for _, topic := range event.Topics() {
		want := slices.Sorted(slices.Values(topic.Producers()))
		if got := slices.Sorted(slices.Values(allowed["+xadd "+string(topic)])); !slices.Equal(got, want) {
			t.Errorf("+xadd on %s is allowed to %v, want %v", topic, got, want)
		}
		for _, producer := range want { // The producer alone.
			watermark := "+set watermark:published:{" + string(topic) + "}:" + producer
			if got := allowed[watermark]; !slices.Equal(got, []string{producer}) {
				t.Errorf("%s is allowed to %v, want %s", watermark, got, producer)
			}
		}
	}
}
