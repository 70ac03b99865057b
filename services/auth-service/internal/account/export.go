package account

import (
	"context"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/event"
)

// exportPage is how many accounts are in memory at a time.
const exportPage = 1000

// Export calls visit with every account, newest first, and records the export.
func (a *Accounts) Export(ctx context.Context, visit func(Account) error) error {
	n := 0
	for after := cursor.Position(""); ; {
		page, err := a.store.Accounts(ctx, Filter{}, after, exportPage)
		if err != nil {
			return err
		}
		for _, account := range page {
			if err := visit(account); err != nil {
				return err
			}
			n++
		}
		if len(page) < exportPage {
			return a.store.Record(ctx, event.New(ctx, a.time(), "", event.UserExported{Count: n}))
		}
		last := page[len(page)-1]
		after = cursor.At(last.CreatedAt, last.ID)
	}
}
