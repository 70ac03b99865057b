//go:build !linux

package localserver

import "syscall"

// dieWithParent can do nothing here: only Linux ties a child to its parent.
func dieWithParent(*syscall.SysProcAttr) {}
