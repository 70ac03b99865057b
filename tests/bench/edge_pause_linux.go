package main

import (
	"syscall"
	"time"
)

// pause waits for at most d. It waits in the kernel, because the runtime's timers can be a
// millisecond late, which is as long as the measured times.
func pause(d time.Duration) {
	wait := syscall.NsecToTimespec(int64(d))
	_ = syscall.Nanosleep(&wait, nil) // A signal ends it early.
}
