// Package tests has the tests of the whole system. The launcher of the local stack starts
// the real processes, and the tests use the gateway, the mailbox and the commands of
// operators, as users of the product do.
package tests
