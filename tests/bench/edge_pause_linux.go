package main

import (
	"syscall"
	"time"
)

// pause waits for d, or less. It waits in the kernel, since the runtime's
// timers come up to a millisecond late, which is as long as what is measured.
func pause(d time.Duration) {
	wait := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&wait, nil) // A signal ends it early.
}
