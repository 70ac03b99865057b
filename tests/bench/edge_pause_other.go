//go:build !linux

package main

import "time"

// pause waits for d, or up to a millisecond more.
func pause(d time.Duration) { <-time.After(d) }
