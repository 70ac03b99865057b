package service_test

import (
	"flag"
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/service"
)

// TestParseFlags: a flag that a script leaves empty or repeats is refused, because the
// command would select more than the script means.
func TestParseFlags(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]string{
		"-type a -max 3 -dry-run":    "",
		"-type=a --max=3 rest":       "",
		"-dry-run=false":             "",
		"-type=":                     "-type: empty value",
		"-type  -max 3":              "-type: empty value", // what "$TYPE" leaves if it is not set
		"-max=":                      "-max: empty value",
		"-type a -type b":            "-type: repeated flag",
		"-dry-run -dry-run=false":    "-dry-run: repeated flag",
		"-typ a":                     "not defined: -typ",
		"-max x":                     "-max",
		"-type a rest -type b again": "-type: repeated flag",
	} {
		flags := flag.NewFlagSet("test", flag.ContinueOnError)
		kind := flags.String("type", "default", "")
		flags.Int("max", 0, "")
		flags.Bool("dry-run", false, "")
		err := service.ParseFlags(flags, strings.Split(args, " "))
		if err == nil && flags.NArg() > 1 {
			err = service.ParseFlags(flags, flags.Args()[1:])
		}
		switch {
		case want == "" && err != nil, want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("ParseFlags(%q) = %v, want %q", args, err, want)
		case want == "" && *kind != "a" && *kind != "default":
			t.Errorf("ParseFlags(%q): type = %q", args, *kind)
		}
	}
}
