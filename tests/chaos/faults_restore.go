package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"
)

// The number of sign-ups between the copy of a database and its restore, and how long they
// may take.
const (
	lostSignUps   = 6
	restoreWindow = 30 * time.Second
)

func restoreFaults() []fault {
	all := []fault{
		{name: "database of auth restored", inject: restoreProducer, parts: []string{postgresOf("auth")}, consumers: []string{auditService}},
		{
			name: "database of auth restored and Redis emptied", inject: restoreProducerAndFlush, parts: []string{postgresOf("auth"), redisServer},
			consumers: []string{auditService},
		},
		{name: "database of audit restored", inject: restoreConsumer("audit", auditService), parts: []string{postgresOf("audit")}, consumers: []string{auditService}},
		{
			name: "database of user restored", inject: restoreConsumer("user", userService), parts: []string{postgresOf("user")}, consumers: []string{userService},
			uses: []string{userService},
		},
		{name: "database of email restored", inject: restoreEmail, parts: []string{postgresOf("email")}, consumers: []string{emailService}},
		{name: "database of email created again", inject: recreateEmail, parts: []string{postgresOf("email"), emailService}, consumers: []string{auditService}},
		{
			name: "database of email and Redis restored", inject: restoreEmailAndRedis, parts: []string{postgresOf("email"), emailService, redisServer},
			consumers: []string{emailService},
		},
		{name: "Redis restored", inject: restoreRedis, parts: []string{redisServer}},
	}
	for i := range all {
		all[i].heal, all[i].effect = usersGoOn, hits
		// Users must sign up, get mails and be recorded between the copy and the restore.
		all[i].uses = slices.Concat(all[i].uses, auditing, mailing)
	}
	return all
}

// usersGoOn signs up users after a restore: their events must reach all services.
func usersGoOn(ctx context.Context, p *phase) error {
	p.workload.signUpMore(ctx)
	return nil
}

// restoreRedis restores the files of Redis: streams, groups and caches are older than the
// databases.
func restoreRedis(ctx context.Context, p *phase) error {
	copied := time.Now()
	if err := p.stack.redis.copyFiles(ctx); err != nil {
		return err
	}
	if err := p.useAfter(ctx, copied); err != nil {
		return err
	}
	if err := p.stack.redis.restoreFiles(ctx); err != nil {
		return err
	}
	p.tail.lost(time.Now())
	return nil
}

// signedUp returns how many sign-ups were acknowledged that began after since.
func (p *phase) signedUp(since time.Time) (n int64) {
	for _, o := range p.history.all() {
		if o.Kind == signup && o.Outcome == ok && o.Start.After(since) {
			n++
		}
	}
	return n
}

// useAfter waits until sign-ups were acknowledged after the copy, and until every one so far
// has its record and its mail: the restored database will know nothing of what the other
// services know.
func (p *phase) useAfter(ctx context.Context, copied time.Time) error {
	err := eventually(ctx, restoreWindow, "users sign up after the copy", func() (bool, error) {
		p.workload.signUpMore(ctx)
		p.hits = p.signedUp(copied)
		return p.hits >= lostSignUps, nil
	})
	if err != nil {
		return err
	}
	by := time.Now()
	return eventually(ctx, restoreWindow, "their sign-ups have records and mails", func() (bool, error) {
		missing, err := p.outstanding(ctx, by)
		return err == nil && len(missing) == 0, nil
	})
}

// awaitPosted waits until Redis knows everything that a consumer has recorded so far: an
// older copy of its database is recognised by that, unless it is younger than two seconds.
func (p *phase) awaitPosted(ctx context.Context, consumer string) error {
	return p.awaitKnown(ctx, consumer, "redis", p.observer.postedNumbers)
}

// awaitKnown waits until somebody knows everything that a consumer has recorded so far.
func (p *phase) awaitKnown(ctx context.Context, consumer, subject string, known func(context.Context, string) (map[position]int64, error)) error {
	recorded, err := p.observer.recordedNumbers(ctx, consumer)
	if err != nil {
		return err
	}
	return eventually(ctx, restoreWindow, subject+" knows what "+consumer+" has recorded", func() (bool, error) {
		numbers, err := known(ctx, consumer)
		for at, seq := range recorded {
			if numbers[at] < seq {
				return false, err
			}
		}
		return err == nil, err
	})
}

// wasReverted says whether a database lost what it had at a time.
func (r *run) wasReverted(database string, at time.Time) bool {
	return slices.ContainsFunc(r.reverts, func(v reversion) bool {
		return v.Database == database && v.Copied.Before(at) && v.Restored.After(at)
	})
}

// restore replaces a database, and records that changes since the copy may be gone.
func (p *phase) restore(ctx context.Context, database string, copied time.Time, replace func(context.Context) error) error {
	err := p.verdicts.replace(func() error {
		err := replace(ctx)
		p.observer.databases[database].Reset() // Its connections are broken.
		p.reverts = append(p.reverts, reversion{Database: database, Copied: copied, Restored: time.Now()})
		return err
	})
	if database == "audit" {
		clear(p.checked) // The records that were seen are gone.
	}
	if err != nil {
		return fmt.Errorf("restore the database of %s: %w", database, err)
	}
	return nil
}

// restoreProducer restores the database of auth-service while its users go on.
func restoreProducer(ctx context.Context, p *phase) error {
	db, copied := p.stack.databases["auth"], time.Now()
	if err := db.copyLive(ctx); err != nil {
		return err
	}
	p.observer.databases["auth"].Reset()
	if err := p.useAfter(ctx, copied); err != nil {
		return err
	}
	return p.restore(ctx, "auth", copied, db.restoreLive)
}

// restoreProducerAndFlush empties Redis and restores the database of auth-service before its
// relays have published anything: nobody knows what was published after the copy and not read.
func restoreProducerAndFlush(ctx context.Context, p *phase) error {
	db, copied := p.stack.databases["auth"], time.Now()
	if err := db.copyLive(ctx); err != nil {
		return err
	}
	p.observer.databases["auth"].Reset()
	if err := p.useAfter(ctx, copied); err != nil {
		return err
	}
	return p.whileUnread(ctx, func(ctx context.Context) (err error) {
		for _, one := range p.stack.of(authService) {
			if err := one.signal(syscall.SIGSTOP); err != nil {
				return err
			}
			defer func() { err = errors.Join(err, one.signal(syscall.SIGCONT)) }()
		}
		if err := p.flushAll(ctx); err != nil {
			return err
		}
		return p.restore(ctx, "auth", copied, db.restoreLive)
	})
}

// restoreConsumer restores the files of a database.
func restoreConsumer(database, service string) func(context.Context, *phase) error {
	return func(ctx context.Context, p *phase) error {
		db, copied := p.stack.databases[database], time.Now()
		if err := db.copyFiles(ctx); err != nil {
			return err
		}
		p.observer.databases[database].Reset()
		if err := p.useAfter(ctx, copied); err != nil {
			return err
		}
		if err := p.awaitPosted(ctx, service); err != nil {
			return err
		}
		return p.restore(ctx, database, copied, db.restoreFiles)
	}
}

// restoreEmail restores the database of email-service, and then does what its runbook says.
func restoreEmail(ctx context.Context, p *phase) error {
	db, copied := p.stack.databases["email"], time.Now()
	if err := db.copyFiles(ctx); err != nil {
		return err
	}
	p.observer.databases["email"].Reset()
	if err := p.useAfter(ctx, copied); err != nil {
		return err
	}
	return p.withoutOpenMails(ctx, func() error {
		return p.restore(ctx, "email", copied, db.restoreFiles)
	})
}

// restoreEmailAndRedis restores both to the same moment: Redis knows no more than the database
// of email-service, so only the producers know what was handled since.
func restoreEmailAndRedis(ctx context.Context, p *phase) error {
	db, server, copied := p.stack.databases["email"], p.stack.redis, time.Now()
	if err := p.copyEmailAndRedis(ctx); err != nil {
		return err
	}
	if err := p.useAfter(ctx, copied); err != nil {
		return err
	}
	return p.withoutOpenMails(ctx, func() error {
		// Redis is going to forget it. auth-service stores it once in each RECONCILE_INTERVAL.
		if err := p.awaitKnown(ctx, emailService, authService, p.observer.storedNumbers); err != nil {
			return err
		}
		kill(p.stack.of(emailService)) // It remembers what it has sent.
		err := server.stopped(ctx, func(data string) error {
			return errors.Join(p.restore(ctx, "email", copied, db.restoreFiles), copyFolder(ctx, server.fileCopy(), data))
		})
		p.tail.lost(time.Now())
		return errors.Join(err, restart(emailService)(ctx, p))
	})
}

// copyEmailAndRedis copies both when every mail is sent and Redis knows it.
func (p *phase) copyEmailAndRedis(ctx context.Context) error {
	defer p.workload.pause()()
	if err := p.awaitSent(ctx); err != nil {
		return err
	}
	if err := p.stack.databases["email"].copyFiles(ctx); err != nil {
		return err
	}
	p.observer.databases["email"].Reset()
	return p.stack.redis.copyFiles(ctx)
}

// awaitSent waits until every mail is sent and Redis knows it.
func (p *phase) awaitSent(ctx context.Context) error {
	err := eventually(ctx, restoreWindow, "no mail is left", func() (bool, error) {
		done, _ := p.observer.noMailLeft(ctx)
		return done, nil
	})
	if err != nil {
		return err
	}
	return p.awaitPosted(ctx, emailService)
}

// recreateEmail replaces the database of email-service by an empty one: it begins again as a
// producer and as a consumer.
func recreateEmail(ctx context.Context, p *phase) error {
	return p.withoutOpenMails(ctx, func() error {
		p.hits = 1
		kill(p.stack.of(emailService))
		err := p.restore(ctx, "email", time.Time{}, p.stack.databases["email"].recreate)
		return errors.Join(err, restart(emailService)(ctx, p))
	})
}

// withoutOpenMails calls replace, which restores the database of email-service, while no mail
// has to be sent. Then users go on, and an operator says that no older mail is to be sent.
func (p *phase) withoutOpenMails(ctx context.Context, replace func() error) error {
	resume := p.workload.pause()
	err := p.awaitSent(ctx)
	if err == nil {
		err = replace()
	}
	before := time.Now().UTC().Format(time.RFC3339Nano)
	resume()
	if err != nil {
		return err
	}
	answer := ""
	err = eventually(ctx, restoreWindow, "email-service withholds its mails", func() (bool, error) {
		code, output, err := p.stack.command(ctx, emailService, "resume", "--skip-before", before)
		answer = output
		// Until the service has found out, no mails are withheld.
		return err == nil && code == 0 && strings.Contains(output, "mails to send"), nil
	})
	if err != nil {
		return fmt.Errorf("%w: %s", err, answer)
	}
	return nil
}
