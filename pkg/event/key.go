package event

import "time"

// SigningKeyRotated says that access tokens are signed with another key from
// ActivatesAt on.
type SigningKeyRotated struct {
	KeyID       string    `json:"keyId"`
	Algorithm   string    `json:"algorithm"`
	ActivatesAt time.Time `json:"activatesAt"`
}

// EventName implements Payload.
func (SigningKeyRotated) EventName() string { return "signing_key.rotated.v1" }

// EventTopics implements Payload.
func (SigningKeyRotated) EventTopics() []Topic { return []Topic{Audit} }

// SigningKeyRetired says that no token signed with the key is good any more.
// Forced says that some may have been in use.
type SigningKeyRetired struct {
	KeyID  string `json:"keyId"`
	Forced bool   `json:"forced"`
}

// EventName implements Payload.
func (SigningKeyRetired) EventName() string { return "signing_key.retired.v1" }

// EventTopics implements Payload.
func (SigningKeyRetired) EventTopics() []Topic { return []Topic{Audit} }
