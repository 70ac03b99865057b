package event

import "time"

// SigningKeyRotated says that a new key signs access tokens from ActivatesAt on.
type SigningKeyRotated struct {
	KeyID       string    `json:"keyId"`
	Algorithm   string    `json:"algorithm"`
	ActivatesAt time.Time `json:"activatesAt"`
}

// EventName implements Payload.
func (SigningKeyRotated) EventName() string { return "signing_key.rotated.v1" }

// EventTopics implements Payload.
func (SigningKeyRotated) EventTopics() []Topic { return []Topic{Audit} }

// SigningKeyRetired says that tokens signed with the key are no longer valid. Forced
// says that valid ones may have existed.
type SigningKeyRetired struct {
	KeyID  string `json:"keyId"`
	Forced bool   `json:"forced"`
}

// EventName implements Payload.
func (SigningKeyRetired) EventName() string { return "signing_key.retired.v1" }

// EventTopics implements Payload.
func (SigningKeyRetired) EventTopics() []Topic { return []Topic{Audit} }
