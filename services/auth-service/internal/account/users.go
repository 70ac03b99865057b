package account

import (
	"context"
	"slices"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/token"
)

// Filter narrows a list of accounts; an empty field fits all.
type Filter struct {
	Query  string // a part of the address or the name
	Role   string
	Status string
}

var (
	roles    = []string{token.RoleUser, token.RoleAuditor, token.RoleAdmin}
	statuses = []string{Active, Disabled}
)

// oneOf checks a value that has a fixed set.
func oneOf(field, value string, allowed []string) *problem.Field {
	if slices.Contains(allowed, value) {
		return nil
	}
	return &problem.Field{Field: field, Code: "unknown_value", Message: "There is no such " + field + "."}
}

// Users returns up to limit accounts that fit f, newest first, after the one
// with the id after; who looked is recorded. It fails with a validation problem.
func (a *Accounts) Users(ctx context.Context, f Filter, after string, limit int) ([]Account, error) {
	query, queryFault := parseLine("q", f.Query)
	f.Query = query
	var roleFault, statusFault *problem.Field
	if f.Role != "" {
		roleFault = oneOf("role", f.Role, roles)
	}
	if f.Status != "" {
		statusFault = oneOf("status", f.Status, statuses)
	}
	if err := faults(queryFault, roleFault, statusFault); err != nil {
		return nil, err
	}
	found, err := a.store.Accounts(ctx, f, after, limit)
	if err != nil {
		return nil, err
	}
	return found, a.store.Record(ctx, event.New(ctx, a.time(), "", event.UserListed{
		Searched: f.Query != "", Role: f.Role, Status: f.Status, Found: len(found),
	}))
}

// Record writes down what happened elsewhere, as told by who has no events of its own.
func (a *Accounts) Record(ctx context.Context, told event.Payload) error {
	return a.store.Record(ctx, event.New(ctx, a.time(), event.OriginFrom(ctx).Actor.ID, told))
}

// User returns an account, or ErrNotFound; who looked is recorded.
func (a *Accounts) User(ctx context.Context, id string) (Account, error) {
	found, err := a.store.Account(ctx, id)
	if err != nil {
		return Account{}, err
	}
	return found, a.store.Record(ctx, event.New(ctx, a.time(), id, event.UserViewed{}))
}

// UserUpdate are what an administrator changes of an account; an empty field stays.
type UserUpdate struct {
	Role   string
	Status string
}

// UpdateUser gives an account other rights. All its sessions end: what its
// access tokens say is not true any more. It fails with a validation problem,
// ErrNotFound, ErrSelfDemotion or ErrLastAdmin.
func (a *Accounts) UpdateUser(ctx context.Context, caller token.Identity, id string, to UserUpdate) (Account, error) {
	if err := checkUserUpdate(to); err != nil {
		return Account{}, err
	}
	var changed Account
	err := a.update(ctx, id, func(c *Change) error {
		now, before := a.time(), c.Account
		if to.Role != "" {
			c.Account.Role = to.Role
		}
		if to.Status != "" {
			c.Account.Status = to.Status
		}
		changed = c.Account
		if c.Account == before {
			return nil
		}
		if c.Account.ID == caller.UserID {
			return ErrSelfDemotion
		}
		c.Account.UpdatedAt = now
		changed = c.Account
		reason := reasonRoleChanged
		if changed.Role != before.Role {
			c.record(ctx, now, event.UserRoleChanged{Before: before.Role, After: changed.Role})
		}
		if changed.Status != before.Status && changed.Status == Disabled {
			reason = reasonDisabled
			c.record(ctx, now, event.UserDisabled{Before: before.Status, After: changed.Status})
		}
		if changed.Status != before.Status && changed.Status == Active {
			c.record(ctx, now, event.UserEnabled{Before: before.Status, After: changed.Status})
		}
		c.revokeSessions(ctx, now, reason)
		return nil
	})
	return changed, err
}

func checkUserUpdate(to UserUpdate) error {
	var roleFault, statusFault *problem.Field
	if to.Role != "" {
		roleFault = oneOf("role", to.Role, roles)
	}
	if to.Status != "" {
		statusFault = oneOf("status", to.Status, statuses)
	}
	if to == (UserUpdate{}) {
		roleFault = &problem.Field{Field: "role", Code: "required", Message: "A role or a status is needed."}
	}
	return faults(roleFault, statusFault)
}

// RevokeUserSessions ends all sessions of an account and returns how many they
// were. It fails with ErrNotFound.
func (a *Accounts) RevokeUserSessions(ctx context.Context, id string) (int, error) {
	n := 0
	err := a.update(ctx, id, func(c *Change) error {
		now := a.time()
		n = c.revokeSessions(ctx, now, reasonAdmin)
		c.record(ctx, now, event.UserSessionsRevoked{Revoked: n})
		return nil
	})
	return n, err
}

// DeleteUser deletes an account for good. It fails with ErrNotFound,
// ErrSelfDemotion or ErrLastAdmin.
func (a *Accounts) DeleteUser(ctx context.Context, caller token.Identity, id string) error {
	return a.update(ctx, id, func(c *Change) error {
		if c.Account.ID == caller.UserID {
			return ErrSelfDemotion
		}
		a.delete(ctx, c)
		return nil
	})
}
