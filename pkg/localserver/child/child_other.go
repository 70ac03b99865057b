//go:build unix && !linux

package child

import "syscall"

// Only Linux signals orphans; elsewhere the next start finds and stops them.
func dieWithParent(*syscall.SysProcAttr, syscall.Signal) {}
