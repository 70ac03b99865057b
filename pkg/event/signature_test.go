package event_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

const (
	oldSecret = "the first one: 7Gx2mQ9vLd4sKp8wZr5t"
	newSecret = "the second one: 3Hy6nB1cFj0eVu7aXi2o"
)

func newSigner(t testing.TB, producer, secret string) *event.Signer {
	t.Helper()
	s, err := event.NewSigner(producer, secret)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func publicKeys(t testing.TB, signers ...*event.Signer) event.PublicKeys {
	t.Helper()
	var list []string
	for _, s := range signers {
		list = append(list, s.PublicKey())
	}
	keys, err := event.ParsePublicKeys(strings.Join(list, ","))
	if err != nil {
		t.Fatal(err)
	}
	return keys
}

// published returns an event as its producer publishes it.
func published(t testing.TB, producer string, p event.Payload) (event.Event, []byte) {
	t.Helper()
	e := event.New(t.Context(), time.Now(), "ann", p)
	e.ID, e.Producer, e.ProducerSeq = "01926f3a-7c2e-7b3a-9d55-0f5e6a1b2c3d", producer, 7
	payload, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if e, err = event.Parse(payload); err != nil {
		t.Fatal(err)
	}
	return e, payload
}

// TestSEC114Signature is SEC-114: an event is accepted only with its producer's signature,
// for exactly these bytes, on this stream.
func TestSEC114Signature(t *testing.T) {
	t.Parallel()
	auth, user := newSigner(t, "auth-service", oldSecret), newSigner(t, "user-service", oldSecret)
	rotated := newSigner(t, "auth-service", newSecret)
	keys := publicKeys(t, auth, rotated, user)
	e, payload := published(t, "auth-service", event.UserLoggedOut{SessionID: "s"})
	sign := func(s *event.Signer, topic event.Topic, payload []byte) event.Signature {
		return event.Signature{KeyID: s.KeyID(), Value: s.Sign(topic, e.ID, e.Name, payload)}
	}
	good := sign(auth, event.User, payload)
	renumbered := []byte(strings.Replace(string(payload), `"producerSeq":7`, `"producerSeq":8`, 1))
	for name, tc := range map[string]struct {
		keys      event.PublicKeys
		topic     event.Topic
		payload   []byte
		signature event.Signature
		want      error
	}{
		"as published":                {keys, event.User, payload, good, nil},
		"again with the next key":     {keys, event.User, payload, sign(rotated, event.User, payload), nil},
		"on its other stream":         {keys, event.Audit, payload, sign(auth, event.Audit, payload), nil},
		"unsigned":                    {keys, event.User, payload, event.Signature{}, event.ErrUnsigned},
		"moved to another stream":     {keys, event.Audit, payload, good, event.ErrForged},
		"renumbered":                  {keys, event.User, renumbered, good, event.ErrForged},
		"another byte":                {keys, event.User, append(slices.Clone(payload), ' '), good, event.ErrForged},
		"signed by another producer":  {keys, event.User, payload, sign(user, event.User, payload), event.ErrForged},
		"another producer's key id":   {keys, event.User, payload, event.Signature{KeyID: user.KeyID(), Value: good.Value}, event.ErrForged},
		"without the key id":          {keys, event.User, payload, event.Signature{Value: good.Value}, event.ErrForged},
		"without the signature":       {keys, event.User, payload, event.Signature{KeyID: good.KeyID}, event.ErrForged},
		"not base64":                  {keys, event.User, payload, event.Signature{KeyID: good.KeyID, Value: "?"}, event.ErrForged},
		"a key that was removed":      {publicKeys(t, rotated, user), event.User, payload, good, event.ErrForged},
		"a key that is not known yet": {publicKeys(t, auth, user), event.User, payload, sign(rotated, event.User, payload), event.ErrForged},
		"no keys":                     {event.PublicKeys{}, event.User, payload, good, event.ErrForged},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if err := tc.keys.Check(tc.topic, e, tc.payload, tc.signature); !errors.Is(err, tc.want) {
				t.Errorf("Check() = %v, want %v", err, tc.want)
			}
		})
	}
}

// TestSEC115WrongProducer is SEC-115: a producer with a good signature can publish only its
// own events, on its own streams.
func TestSEC115WrongProducer(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		producer string
		topic    event.Topic
		payload  event.Payload
		want     error
	}{
		"a deletion by auth-service":         {"auth-service", event.User, event.UserDeleted{}, nil},
		"a profile's change by user-service": {"user-service", event.User, event.UserProfileUpdated{}, nil},
		"a refusal by email-service":         {"email-service", event.Audit, event.AccessDenied{}, nil},
		"a deletion by user-service":         {"user-service", event.User, event.UserDeleted{}, event.ErrWrongProducer},
		"a deletion by email-service":        {"email-service", event.Audit, event.UserDeleted{}, event.ErrWrongProducer},
		"a new version of a deletion":        {"email-service", event.Audit, nextVersion{event.UserDeleted{}}, event.ErrWrongProducer},
		"a revocation by user-service":       {"user-service", event.User, event.SessionRevoked{}, event.ErrWrongProducer},
		"a mail by auth-service":             {"auth-service", event.Audit, event.EmailSent{}, event.ErrWrongProducer},
		"a stream that is not its own":       {"email-service", event.User, event.AccessDenied{}, event.ErrWrongProducer},
		"nobody knows the producer":          {"test", event.Audit, event.AccessDenied{}, event.ErrWrongProducer},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSigner(t, tc.producer, oldSecret)
			e, payload := published(t, tc.producer, tc.payload)
			signature := event.Signature{KeyID: s.KeyID(), Value: s.Sign(tc.topic, e.ID, e.Name, payload)}
			if err := publicKeys(t, s).Check(tc.topic, e, payload, signature); !errors.Is(err, tc.want) {
				t.Errorf("Check() = %v, want %v", err, tc.want)
			}
		})
	}
}

// nextVersion is a version of an event that this release does not know.
type nextVersion struct{ event.UserDeleted }

func (nextVersion) EventName() string { return "user.deleted.v2" }

// TestPublishersOfContracts: every contract has a publisher that may publish on each of its
// streams.
func TestPublishersOfContracts(t *testing.T) {
	t.Parallel()
	for _, p := range event.Contracts() {
		publishers := event.PublishersOf(p.EventName())
		if len(publishers) == 0 {
			t.Errorf("nobody publishes %s", p.EventName())
		}
		for _, producer := range publishers {
			for _, topic := range p.EventTopics() {
				if !slices.Contains(topic.Producers(), producer) {
					t.Errorf("%s publishes %s, but nothing on %s", producer, p.EventName(), topic)
				}
			}
		}
	}
}

func TestParsePublicKeys(t *testing.T) {
	t.Parallel()
	line := newSigner(t, "auth-service", oldSecret).PublicKey()
	other := newSigner(t, "user-service", oldSecret)
	parts := strings.Split(line, ":")
	for name, list := range map[string]string{
		"empty":             "",
		"an empty entry":    line + ",",
		"twice":             line + "," + line,
		"without the id":    parts[0] + ":" + parts[2],
		"another key's id":  parts[0] + ":" + other.KeyID() + ":" + parts[2],
		"no producer":       ":" + parts[1] + ":" + parts[2],
		"a short key":       parts[0] + ":" + parts[1] + ":" + parts[2][:40],
		"not base64":        parts[0] + ":" + parts[1] + ":" + strings.Repeat("?", 44),
		"a private key":     oldSecret,
		"too many parts":    line + ":x",
		"a capital":         "Auth" + line[4:],
		"a space within it": strings.Replace(line, ":", " :", 1),
	} {
		if _, err := event.ParsePublicKeys(list); err == nil {
			t.Errorf("%s: %q was accepted", name, list)
		}
	}
	keys, err := event.ParsePublicKeys(line + ", " + other.PublicKey())
	if err != nil || !keys.Has(other) || keys.Has(newSigner(t, "user-service", newSecret)) {
		t.Errorf("keys %v, %v", keys, err)
	}
	if got := keys.Lacking(); !slices.Equal(got, []string{"audit-service", "email-service"}) {
		t.Errorf("Lacking() = %v", got)
	}
}

func FuzzParsePublicKeys(f *testing.F) {
	line := newSigner(f, "auth-service", oldSecret).PublicKey()
	f.Add(line)
	f.Add(line + "," + newSigner(f, "user-service", newSecret).PublicKey())
	f.Add("a:b:c,,")
	f.Fuzz(func(t *testing.T, list string) {
		keys, err := event.ParsePublicKeys(list)
		if err == nil && len(keys.Lacking()) == 4 && !strings.Contains(list, ":") {
			t.Errorf("%q has no key", list)
		}
	})
}

func BenchmarkSignature(b *testing.B) {
	s := newSigner(b, "auth-service", oldSecret)
	keys := publicKeys(b, s)
	e, payload := published(b, "auth-service", event.UserLoggedIn{SessionID: "01926f39-0000-7000-8000-000000000001"})
	signature := event.Signature{KeyID: s.KeyID(), Value: s.Sign(event.Audit, e.ID, e.Name, payload)}
	b.Run("sign", func(b *testing.B) {
		for b.Loop() {
			s.Sign(event.Audit, e.ID, e.Name, payload)
		}
	})
	b.Run("check", func(b *testing.B) {
		for b.Loop() {
			if err := keys.Check(event.Audit, e, payload, signature); err != nil {
				b.Fatal(err)
			}
		}
	})
}
