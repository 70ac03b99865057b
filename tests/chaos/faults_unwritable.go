package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/headgate/headgate/tests/internal/redisserver"
)

const blockedStream = "email-events"

// rights returns the rights of auth-service in the ACL of the deployment.
func (p *phase) rights() ([]string, error) {
	file := redisserver.Config{Dir: p.stack.redis.opts.Dir}.ACLFile()
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the rights of %s: %w", authService, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "user "+authService+" "); ok {
			return splitRules(strings.TrimSpace(rest)), nil
		}
	}
	return nil, fmt.Errorf("%s has no user %s", file, authService)
}

// splitRules splits at spaces, but not inside the parentheses of a selector.
func splitRules(text string) (rules []string) {
	depth, begin := 0, 0
	for i, c := range text + " " {
		switch {
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ' ' && depth == 0:
			if i > begin {
				rules = append(rules, text[begin:i])
			}
			begin = i + 1
		}
	}
	return rules
}

func (p *phase) setRights(ctx context.Context, rules []string) error {
	args := []any{"ACL", "SETUSER", authService, "reset"}
	for _, rule := range rules {
		args = append(args, rule)
	}
	if err := p.observer.redis.Do(ctx, args...).Err(); err != nil {
		return fmt.Errorf("set the rights of %s: %w", authService, err)
	}
	return nil
}

// unwritableRows are more events than a relay reads at once.
const unwritableRows = 600

// addUnwritable commits events for the stream that cannot be written. Its consumer ignores
// their name.
func (p *phase) addUnwritable(ctx context.Context) error {
	const query = `
		INSERT INTO outbox (event_id, topic, name, payload)
		SELECT id, $1, name, json_build_object(
			'id', id, 'name', name, 'producer', $2::text, 'occurredAt', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
			'actor', json_build_object('type', 'service'), 'outcome', 'success', 'data', json_build_object())
		FROM (
			SELECT 'chaos.unwritable.v1' AS name,
				(lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '7' || substr(random, 1, 3) || '8' || substr(random, 4, 15))::uuid AS id
			FROM (SELECT md5(n::text || random()::text) AS random FROM generate_series(1, $3) AS n) AS numbers
		) AS events`
	if _, err := p.observer.databases["auth"].Exec(ctx, query, blockedStream, authService, unwritableRows); err != nil {
		return fmt.Errorf("add events for %s: %w", blockedStream, err)
	}
	return nil
}

// revoke takes from auth-service the right to write to one stream.
func revoke(ctx context.Context, p *phase) error {
	rules, err := p.rights()
	if err != nil {
		return err
	}
	for i, rule := range rules {
		rules[i] = strings.NewReplacer(" ~"+blockedStream+" ", " ", "(~"+blockedStream+" ", "(").Replace(rule)
	}
	return errors.Join(p.setRights(ctx, rules), p.addUnwritable(ctx))
}

func grant(ctx context.Context, p *phase) error {
	rules, err := p.rights()
	if err != nil {
		return err
	}
	return p.setRights(ctx, rules)
}

// hideStream puts a string in the place of a stream.
func hideStream(ctx context.Context, p *phase) error {
	_, err := p.observer.redis.TxPipelined(ctx, func(pipe redis.Pipeliner) error {
		pipe.Rename(ctx, blockedStream, blockedStream+":hidden")
		pipe.Set(ctx, blockedStream, "no stream", 0)
		return nil
	})
	if err != nil {
		return fmt.Errorf("hide %s: %w", blockedStream, err)
	}
	return p.addUnwritable(ctx)
}

func showStream(ctx context.Context, p *phase) error {
	if err := p.observer.redis.Rename(ctx, blockedStream+":hidden", blockedStream).Err(); err != nil {
		return fmt.Errorf("show %s: %w", blockedStream, err)
	}
	return nil
}
