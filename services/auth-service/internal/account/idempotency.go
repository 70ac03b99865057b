package account

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"github.com/headgate/headgate/pkg/event"
	"github.com/headgate/headgate/pkg/problem"
)

// idempotencyStore keeps the answers to requests that a client may repeat.
type idempotencyStore interface {
	// ReserveIdempotencyKey stores a record without its answer. If the request was
	// made before, it returns the stored answer instead. It fails with ErrKeyReused or
	// ErrKeyInProgress.
	ReserveIdempotencyKey(ctx context.Context, r IdempotencyRecord, now time.Time) (answer string, err error)
	// ReleaseIdempotencyKey deletes a record that has no answer.
	ReleaseIdempotencyKey(ctx context.Context, key []byte) error
}

// IdempotencyRecord is the stored answer to a request that a client may repeat under
// one Idempotency-Key.
type IdempotencyRecord struct {
	Key          []byte   // hashed
	Fingerprints [][]byte // of the request, by each key; the first is stored
	Answer       string   // sealed; empty while the request is in progress
}

const (
	// IdempotencyRetention is how long answers are kept.
	IdempotencyRetention = 24 * time.Hour
	// IdempotencyTimeout is how long a request without an answer is considered in
	// progress. After that, its process must have died.
	IdempotencyTimeout = time.Minute
)

// The failures of repeated requests.
var (
	ErrKeyReused     = problem.New(problem.Conflict, "idempotency_key_reused", "This Idempotency-Key was already used for a different request.")
	ErrKeyInProgress = problem.New(problem.Conflict, "idempotency_in_progress", "The first request with this Idempotency-Key is still in progress. Retry shortly.").WithRetryAfter(time.Second)
)

const maxIdempotencyKey = 255

// checkIdempotencyKey checks the syntax of a key, which may be absent.
func checkIdempotencyKey(key string) error {
	valid := len(key) <= maxIdempotencyKey
	for _, c := range []byte(key) {
		valid = valid && '!' <= c && c <= '~'
	}
	if valid {
		return nil
	}
	return problem.Validation(problem.Field{
		Field: "Idempotency-Key", Code: "invalid_format", Message: "Idempotency-Key must be 1–255 visible ASCII characters.",
	})
}

// idempotently calls do for a sign-up, or returns the stored answer and true if the
// request is repeated. Without a key it just calls do. The answer is stored in the
// transaction of do, which must pass on the record after storeAnswer.
func (a *Accounts) idempotently(ctx context.Context, key string, in SignUp, do func(record *IdempotencyRecord) (SignUpResult, error)) (SignUpResult, bool, error) {
	if key == "" {
		out, err := do(nil)
		return out, false, err
	}
	hash := sha256.Sum256([]byte("signup\x00" + key))
	var request bytes.Buffer
	if err := json.NewEncoder(&request).Encode(in); err != nil { //nolint:gosec // It goes into an HMAC and nowhere else.
		return SignUpResult{}, false, fmt.Errorf("fingerprint request: %w", err)
	}
	record := IdempotencyRecord{Key: hash[:], Fingerprints: a.fingerprintsOf(request.Bytes())}
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
		// Nothing was stored, so the client may repeat the request at once.
		if released := a.store.ReleaseIdempotencyKey(context.WithoutCancel(ctx), record.Key); released != nil {
			a.log.WarnContext(ctx, "could not release idempotency key", "expires_in", IdempotencyTimeout.String(), "error", released.Error())
		}
		return SignUpResult{}, false, err
	}
	return out, false, nil
}

// fingerprintsOf returns the fingerprints of a request by each key, so that a repetition is
// recognized although another key is the first one now.
func (a *Accounts) fingerprintsOf(request []byte) [][]byte {
	var all [][]byte
	for _, secret := range a.fingerprints.Reveal() {
		mac := hmac.New(sha256.New, hashSecret("headgate fingerprint v1\x00"+secret))
		mac.Write(request)
		all = append(all, mac.Sum(nil))
	}
	return all
}

// AnswerContext binds a sealed answer to its record, by the key in hexadecimal.
func AnswerContext(key string) string { return "answer " + key }

func answerContext(record IdempotencyRecord) string {
	return AnswerContext(hex.EncodeToString(record.Key))
}

// storeAnswer seals the answer into record, if there is one.
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
