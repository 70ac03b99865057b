package service

import (
	"errors"
	"flag"
	"io"
	"strings"
)

// ParseFlags parses the flags of a command. Unlike flags.Parse, it prints nothing, and it
// refuses a flag that is empty or repeated: -type "$TYPE" with an unset variable must not
// select everything. It may be called again with the arguments that are left.
func ParseFlags(flags *flag.FlagSet, args []string) error {
	flags.SetOutput(io.Discard)
	flags.VisitAll(func(f *flag.Flag) {
		if _, ok := f.Value.(*strictValue); !ok {
			f.Value = &strictValue{Value: f.Value}
		}
	})
	return flags.Parse(args)
}

// strictValue is the value of a flag that can be set once.
type strictValue struct {
	flag.Value
	set bool
}

// Set implements flag.Value.
func (v *strictValue) Set(text string) error {
	if strings.TrimSpace(text) == "" {
		return errors.New("empty value: give it a value or leave the flag out")
	}
	if v.set {
		return errors.New("repeated flag: use it once")
	}
	v.set = true
	return v.Value.Set(text)
}

// IsBoolFlag lets a flag without a value be true.
func (v *strictValue) IsBoolFlag() bool {
	b, ok := v.Value.(interface{ IsBoolFlag() bool })
	return ok && b.IsBoolFlag()
}
