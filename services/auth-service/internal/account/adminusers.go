package account

import (
	"context"
	"strings"
	"time"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/textfield"
	"github.com/headgate/headgate/pkg/token"
)

// accountLister is what administrators and exports list.
type accountLister interface {
	// Accounts returns up to limit accounts that match f, newest first, from behind
	// the one at after.
	Accounts(ctx context.Context, f Filter, after cursor.Position, limit int) ([]Account, error)
}

// Filter narrows a list of accounts. An empty field matches all.
type Filter struct {
	Query  string // part of the address or the name
	Role   string
	Status string
}

// UserUpdate is what an administrator changes about an account. An empty field stays.
type UserUpdate struct {
	Role   string
	Status string
}

var (
	roles    = []string{token.RoleUser, token.RoleAuditor, token.RoleAdmin}
	statuses = []string{Active, Disabled}
)

// ErrSelfDemotion says that administrators cannot change themselves.
var ErrSelfDemotion = problem.New(problem.Forbidden, "self_demotion", "You cannot change your own role or status.")

// Users returns up to limit accounts that match f, newest first, from behind the one
// at after. Every access is recorded. It fails with a validation problem.
func (a *Accounts) Users(ctx context.Context, f Filter, after cursor.Position, limit int) ([]Account, error) {
	// A name that a newer release would refuse can still be found.
	query, queryErr := textfield.Lines("q", strings.TrimSpace(f.Query), maxLine)
	f.Query = query
	if err := validate(queryErr, optionalRole(f.Role), optionalStatus(f.Status)); err != nil {
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

func optionalRole(role string) *problem.Field {
	if role == "" {
		return nil
	}
	return oneOf("role", role, roles)
}

func optionalStatus(status string) *problem.Field {
	if status == "" {
		return nil
	}
	return oneOf("status", status, statuses)
}

// User returns an account. Every access is recorded. It fails with ErrNotFound.
func (a *Accounts) User(ctx context.Context, id string) (Account, error) {
	found, err := a.store.Account(ctx, id)
	if err != nil {
		return Account{}, err
	}
	return found, a.store.Record(ctx, event.New(ctx, a.time(), id, event.UserViewed{}))
}

// UpdateUser changes the role or status of an account. All its sessions end, because
// its access tokens state the old role. It fails with a validation problem,
// ErrNotFound, ErrSelfDemotion or ErrLastAdmin.
func (a *Accounts) UpdateUser(ctx context.Context, caller token.Identity, id string, to UserUpdate) (Account, error) {
	roleErr := optionalRole(to.Role)
	if to == (UserUpdate{}) {
		roleErr = &problem.Field{Field: "role", Code: "required", Message: "A role or a status is required."}
	}
	if err := validate(roleErr, optionalStatus(to.Status)); err != nil {
		return Account{}, err
	}
	var changed Account
	err := a.update(ctx, id, allSessions, func(c *Change) error {
		before := c.Account
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
		now := a.time()
		c.Account.UpdatedAt = now
		changed = c.Account
		return c.roleOrStatusChanged(ctx, now, before)
	})
	return changed, err
}

// roleOrStatusChanged notifies the owner of the difference from before and revokes the
// sessions.
func (c *Change) roleOrStatusChanged(ctx context.Context, now time.Time, before Account) error {
	reason, address, name := reasonRoleChanged, c.Account.Email.Address, c.Account.Name
	var changes []event.Payload
	if c.Account.Role != before.Role {
		changes = append(changes, event.UserRoleChanged{Before: before.Role, After: c.Account.Role, Email: address, Name: name})
	}
	switch c.Account.Status {
	case before.Status:
	case Disabled:
		reason = reasonDisabled
		changes = append(changes, event.UserDisabled{Before: before.Status, After: c.Account.Status, Email: address, Name: name})
	default:
		changes = append(changes, event.UserEnabled{Before: before.Status, After: c.Account.Status, Email: address, Name: name})
	}
	for _, change := range changes {
		if err := c.notify(ctx, now, change); err != nil {
			return err
		}
	}
	c.revokeSessions(ctx, now, reason)
	return nil
}

// RevokeUserSessions ends all sessions of an account and returns their number. It
// fails with ErrNotFound.
func (a *Accounts) RevokeUserSessions(ctx context.Context, id string) (int, error) {
	n := 0
	err := a.update(ctx, id, allSessions, func(c *Change) error {
		now := a.time()
		n = c.revokeSessions(ctx, now, reasonRevokedByAdmin)
		c.record(ctx, now, event.UserSessionsRevoked{Revoked: n})
		return nil
	})
	return n, err
}

// ErrOwnFactors says that administrators cannot reset their own factors: a thief of their
// session could.
var ErrOwnFactors = problem.New(problem.Forbidden, "own_factors", "You cannot reset your own factors. Remove them one by one, or ask another administrator.")

// ResetFactors removes all factors of an account whose owner has lost them, ends its
// sessions, and returns the number of factors. It fails with ErrNotFound or ErrOwnFactors.
func (a *Accounts) ResetFactors(ctx context.Context, caller token.Identity, id string) (int, error) {
	n := 0
	err := a.update(ctx, id, allSessions, func(c *Change) error {
		if c.Account.ID == caller.UserID {
			return ErrOwnFactors
		}
		now := a.time()
		n = len(c.Factors)
		c.record(ctx, now, event.MFAReset{Removed: n})
		if n > 0 {
			c.revokeSessions(ctx, now, reasonFactorsReset)
		}
		return c.removeFactors(ctx, now, func(Factor) bool { return true })
	})
	return n, err
}

// DeleteUser deletes an account permanently. It fails with ErrNotFound,
// ErrSelfDemotion or ErrLastAdmin.
func (a *Accounts) DeleteUser(ctx context.Context, caller token.Identity, id string) error {
	return a.update(ctx, id, allSessions, func(c *Change) error {
		if c.Account.ID == caller.UserID {
			return ErrSelfDemotion
		}
		c.deleteAccount(ctx, a.time(), deletedByRequest)
		return nil
	})
}
