package store

import (
	"testing"

	"github.com/headgate/headgate/pkg/deadletter"
	"github.com/headgate/headgate/pkg/outbox"
	"github.com/headgate/headgate/pkg/testkit"
)

// TestUpgradeLetsWritersPass is REL-41 for the audit log.
func TestUpgradeLetsWritersPass(t *testing.T) {
	t.Parallel()
	testkit.Upgrade{
		DB:     testkit.Database(t, outbox.Schema(), deadletter.Schema(), testkit.Until(t, Schema(), "00004")),
		Schema: Schema(), Table: "events",
		Write: `
			INSERT INTO events (id, type, version, occurred_at, producer, actor_type, actor_id, subject_id, outcome, ip, user_agent,
				request_id, correlation_id, causation_id, data)
			VALUES (gen_random_uuid(), 't', 1, now(), 'p', '', '', '', '', '', '', '', '', '', '{}')`,
	}.WantWritersPass(t)
}
