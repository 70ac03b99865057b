// Package tests drives the whole system from outside: the launcher of the local
// stack starts the real processes, and everything goes through the gateway, the
// mailbox and the operators' files, as a user of the product would do it.
package tests
