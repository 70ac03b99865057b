package realtime

import (
	"fmt"
	"slices"
	"strings"

	"github.com/headgate/headgate/pkg/token"
)

// Channel is a subject that those who operate the installation can listen to.
type Channel string

// The channels: audit.appended, dead_letter.added and stream.lag.
const (
	Audit       Channel = "audit"
	DeadLetters Channel = "dead_letters"
	Streams     Channel = "streams"
)

// Channels returns all channels.
func Channels() []Channel { return []Channel{Audit, DeadLetters, Streams} }

// Roles returns the roles that may listen to c.
func (c Channel) Roles() []string {
	if c == Audit {
		return []string{token.RoleAdmin, token.RoleAuditor}
	}
	return []string{token.RoleAdmin}
}

// ParseChannels reads a list of channels that is separated by commas. Empty is none.
func ParseChannels(text string) ([]Channel, error) {
	if text == "" {
		return nil, nil
	}
	var found []Channel
	for name := range strings.SplitSeq(text, ",") {
		c := Channel(name)
		if !slices.Contains(Channels(), c) {
			return nil, fmt.Errorf("unknown channel %q", name)
		}
		if !slices.Contains(found, c) {
			found = append(found, c)
		}
	}
	return found, nil
}
