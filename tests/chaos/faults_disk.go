package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"time"
)

func diskFaults() []fault {
	var all []fault
	for _, database := range smallDisks {
		others, uses := recorded, with(auditing, emailService) // while mails wait
		if database == "audit" {
			others, uses = mailedTo, with(mailing, auditService) // while records wait
		}
		all = append(all, fault{
			name: "disk of " + database + " full", lasts: 6 * time.Second, parts: []string{postgresOf(database)}, uses: uses,
			needs: needs{smallDisks: true}, others: others,
			inject: func(_ context.Context, p *phase) error {
				db := p.stack.databases[database]
				before, err := db.refusedWrites()
				p.hits = before
				if err != nil {
					return err
				}
				return db.fillDisk()
			},
			heal: func(ctx context.Context, p *phase) error { return p.stack.databases[database].emptyDisk(ctx) },
			effect: func(_ context.Context, p *phase) (int64, error) {
				now, err := p.stack.databases[database].refusedWrites()
				return now - p.hits, err
			},
		})
	}
	return all
}

// refusedWrites returns how often the server has said that its disk is full.
func (s *server) refusedWrites() (int64, error) {
	log, err := os.ReadFile(s.log.Name())
	if err != nil {
		return 0, fmt.Errorf("read the log of %s: %w", s.name, err)
	}
	return int64(bytes.Count(log, []byte("No space left on device"))), nil
}
