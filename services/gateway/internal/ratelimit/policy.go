package ratelimit

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Rate is the number of requests that may pass in any window of a length. The zero value
// means no limit.
type Rate struct {
	Requests int
	Window   time.Duration
	Observe  bool // Only report what the limit would reject.
}

var errRate = errors.New("want requests/window, such as 5/15m, or the same with a space and observe, or off")

const (
	maxRequests = 1_000_000
	maxWindow   = 24 * time.Hour
)

// UnmarshalText implements encoding.TextUnmarshaler: 5/15m, 5/15m observe, or off.
func (r *Rate) UnmarshalText(text []byte) error {
	if string(text) == "off" {
		*r = Rate{}
		return nil
	}
	amount, observe := strings.CutSuffix(string(text), " observe")
	left, right, ok := strings.Cut(amount, "/")
	if !ok {
		return errRate
	}
	requests, err := strconv.Atoi(left)
	if err != nil || requests < 1 || requests > maxRequests {
		return errRate
	}
	window, err := time.ParseDuration(right)
	if err != nil || window < time.Second || window > maxWindow || window%time.Second != 0 {
		return errRate
	}
	*r = Rate{Requests: requests, Window: window, Observe: observe}
	return nil
}

// String returns what UnmarshalText reads.
func (r Rate) String() string {
	switch {
	case r.Off():
		return "off"
	case r.Observe:
		return fmt.Sprintf("%d/%s observe", r.Requests, r.Window)
	}
	return fmt.Sprintf("%d/%s", r.Requests, r.Window)
}

// Off reports whether there is no limit.
func (r Rate) Off() bool { return r.Requests == 0 }

// Policy is a rate with the name that clients and operators see.
type Policy struct {
	Name string
	Rate Rate
}

// Key counts the requests of one subject, such as a network or a user, against one
// policy. Subject may be personal data: only its hash leaves the process.
type Key struct {
	Policy  Policy
	Subject string
}

// ID identifies a key within the process. It is a hash, so it has the same size however
// long a subject a client makes up.
type ID [16]byte

// ID returns the key's.
func (k Key) ID() ID {
	var buffer [128]byte // enough for the usual key
	text := append(append(append(buffer[:0], k.Policy.Name...), 0), k.Subject...)
	sum := sha256.Sum256(text)
	return ID(sum[:len(ID{})])
}

// name returns the key's name in Redis. Keys of one call share the tag in
// braces, so that a cluster keeps them on one node.
func (k Key) name(tag string) string {
	return "rl:{" + tag + "}:" + k.Policy.Name + ":" + hash(k.Subject)
}

func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:18])
}

// Decision says whether a request may pass, according to the policy that is closest to
// its limit.
type Decision struct {
	Allowed   bool
	Policy    Policy
	Remaining int           // requests that may still pass
	Reset     time.Duration // until a request that passed leaves the window
}

// tighter reports whether d is closer to its limit than b.
func (d Decision) tighter(b Decision) bool {
	if d.Allowed != b.Allowed {
		return !d.Allowed
	}
	if !d.Allowed {
		return d.Reset > b.Reset
	}
	return d.Remaining < b.Remaining
}

// decide combines the decisions for the keys of a request. The request may pass if all
// enforced keys have room; observed ones do not matter. enforced is false if no key is
// enforced.
func decide(found []Decision) (worst Decision, enforced bool) {
	for _, d := range found {
		if d.Policy.Rate.Observe {
			continue
		}
		if !enforced || d.tighter(worst) {
			worst = d
		}
		enforced = true
	}
	if !enforced {
		return Decision{Allowed: true}, false
	}
	return worst, true
}
