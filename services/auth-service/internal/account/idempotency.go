package account

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

// IdempotencyRecord is a request that a client may repeat: its first answer is kept for
// IdempotencyRetention and given again.
type IdempotencyRecord struct {
	Key         []byte // of the client, hashed
	Fingerprint []byte // of what was asked
	Answer      string // sealed
}

// How long answers are kept, and how long a request is taken to be at work whose
// process has died.
const (
	IdempotencyRetention = 24 * time.Hour
	IdempotencyTimeout   = time.Minute
)

// The failures of repeated requests.
var (
	ErrKeyReused     = problem.New(problem.Conflict, "idempotency_key_reused", "This Idempotency-Key was used for another request.")
	ErrKeyInProgress = problem.New(problem.Conflict, "idempotency_in_progress", "The first request with this Idempotency-Key is still at work.").WithRetryAfter(time.Second)
)

const maxIdempotencyKey = 255

func checkIdempotencyKey(key string) error {
	good := len(key) <= maxIdempotencyKey
	for _, c := range []byte(key) {
		good = good && '!' <= c && c <= '~'
	}
	if good {
		return nil
	}
	return problem.Validation(problem.Field{
		Field: "Idempotency-Key", Code: "invalid_format", Message: "The key has 1 to 255 visible ASCII characters.",
	})
}

// idempotently does a sign-up, or returns the answer that it had, and says so. Without a
// key it just does it. The answer is stored with what do changes: do must pass
// on the IdempotencyRecord that it gets, with its answer by storeAnswer.
func (a *Accounts) idempotently(ctx context.Context, key string, in SignUp, do func(record *IdempotencyRecord) (SignUpResult, error)) (SignUpResult, bool, error) {
	if key == "" {
		out, err := do(nil)
		return out, false, err
	}
	hash := sha256.Sum256([]byte("signup\x00" + key))
	mac := hmac.New(sha256.New, a.fingerprints)
	if err := json.NewEncoder(mac).Encode(in); err != nil { //nolint:gosec // It goes into an HMAC and nowhere else.
		return SignUpResult{}, false, fmt.Errorf("take the fingerprint of a request: %w", err)
	}
	record := IdempotencyRecord{Key: hash[:], Fingerprint: mac.Sum(nil)}
	answer, err := a.store.ReserveIdempotencyKey(ctx, record, a.time())
	if err != nil {
		return SignUpResult{}, false, err
	}
	if answer != "" {
		out, err := a.openAnswer(record, answer)
		return out, true, err
	}
	out, err := do(&record)
	if err != nil {
		// Nothing was done, so the client may try again at once.
		if released := a.store.ReleaseIdempotencyKey(context.WithoutCancel(ctx), record.Key); released != nil {
			a.log.WarnContext(ctx, "key of a failed request not released; it is in a minute", "error", released.Error())
		}
		return SignUpResult{}, false, err
	}
	return out, false, nil
}

func answerContext(record IdempotencyRecord) string { return fmt.Sprintf("answer %x", record.Key) }

// storeAnswer puts the sealed answer into record, which may be nil.
func (a *Accounts) storeAnswer(record *IdempotencyRecord, out SignUpResult) error {
	if record == nil {
		return nil
	}
	out.Account.PasswordHash = ""
	data, err := json.Marshal(out)
	if err != nil {
		return fmt.Errorf("encode answer: %w", err)
	}
	record.Answer = string(a.atRest.Seal(string(data), answerContext(*record)))
	return nil
}

func (a *Accounts) openAnswer(record IdempotencyRecord, answer string) (SignUpResult, error) {
	var out SignUpResult
	data, err := a.atRest.Open(event.Sealed(answer), answerContext(record))
	if err != nil {
		return out, fmt.Errorf("open stored answer: %w", err)
	}
	if err := json.Unmarshal([]byte(data), &out); err != nil {
		return out, fmt.Errorf("decode stored answer: %w", err)
	}
	return out, nil
}
