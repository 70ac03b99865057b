package profile

import "time"

// Search says which profiles an administrator looks for. A profile matches if each word of Q is
// the beginning of its address or of a word of its name, in any script and case. The zero value
// matches every profile.
type Search struct {
	Q             string
	CreatedAfter  time.Time // at this time or later; zero for any
	CreatedBefore time.Time // before this time; zero for any
	Current       bool      // The result must not lag, as that of a replica may.
}
