package main

import (
	"strings"
	"testing"
)

func TestSplitRules(t *testing.T) {
	t.Parallel()
	got := splitRules("on #hash -@all (~a ~b +xadd) (%R~c +xread)")
	want := "on|#hash|-@all|(~a ~b +xadd)|(%R~c +xread)"
	if strings.Join(got, "|") != want {
		t.Errorf("splitRules() = %q, want %q", strings.Join(got, "|"), want)
	}
}
