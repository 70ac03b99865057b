package event

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Link is the body of every event that makes email-service send a mail with a link or a
// code. Token is sealed for email-service with the LinkContext of the event.
type Link struct {
	Email     string    `json:"email" personal:"true"` // where the mail goes
	Name      string    `json:"name" personal:"true"`
	Token     Sealed    `json:"token"`
	ExpiresAt time.Time `json:"expiresAt"`
}

// LinkContext binds the sealed token of a link to its event and its account.
func LinkContext(p Payload, subject string) string { return p.EventName() + " " + subject }

// links are the events that hold a Link.
var links = []string{
	UserVerificationRequested{}.EventName(),
	UserResetLinkIssued{}.EventName(),
	UserEmailChangeLinkIssued{}.EventName(),
	UserEmailRevertLinkIssued{}.EventName(),
	UserReauthCodeIssued{}.EventName(),
	UserExportLinkIssued{}.EventName(),
}

// HasLink reports whether the body of the events with a name is a Link.
func HasLink(name string) bool { return slices.Contains(links, name) }

// DecodeLink is Decode for any of the events whose body is a Link.
func DecodeLink(e Event) (Link, error) {
	var l Link
	if !HasLink(e.Name) {
		return l, fmt.Errorf("%w: %s has no link", ErrMalformed, e.Name)
	}
	if err := json.Unmarshal(e.Data, &l); err != nil {
		return l, fmt.Errorf("%w: %s: %w", ErrMalformed, e.Name, err)
	}
	return l, nil
}

// UserVerificationRequested says that a person must verify an address.
type UserVerificationRequested Link

// EventName implements Payload.
func (UserVerificationRequested) EventName() string { return "user.verification_requested.v1" }

// EventTopics implements Payload.
func (UserVerificationRequested) EventTopics() []Topic { return []Topic{Email} }

// UserResetLinkIssued says that the reader of the mail may set a new password.
type UserResetLinkIssued Link

// EventName implements Payload.
func (UserResetLinkIssued) EventName() string { return "user.reset_link_issued.v1" }

// EventTopics implements Payload.
func (UserResetLinkIssued) EventTopics() []Topic { return []Topic{Email} }

// UserEmailChangeLinkIssued says that the address becomes the account's when the
// reader of the mail confirms it.
type UserEmailChangeLinkIssued Link

// EventName implements Payload.
func (UserEmailChangeLinkIssued) EventName() string { return "user.email_change_link_issued.v1" }

// EventTopics implements Payload.
func (UserEmailChangeLinkIssued) EventTopics() []Topic { return []Topic{Email} }

// UserEmailRevertLinkIssued says that the account's address was changed, and that
// the reader of the mail to the previous address may revert the change.
type UserEmailRevertLinkIssued Link

// EventName implements Payload.
func (UserEmailRevertLinkIssued) EventName() string { return "user.email_revert_link_issued.v1" }

// EventTopics implements Payload.
func (UserEmailRevertLinkIssued) EventTopics() []Topic { return []Topic{Email} }

// UserReauthCodeIssued says that a signed-in user asked to confirm their identity by mail.
// The token is the code, which the user enters.
type UserReauthCodeIssued Link

// EventName implements Payload.
func (UserReauthCodeIssued) EventName() string { return "user.reauth_code_issued.v1" }

// EventTopics implements Payload.
func (UserReauthCodeIssued) EventTopics() []Topic { return []Topic{Email} }

// UserExportLinkIssued says that an export is ready, and that the reader of the mail may
// download it.
type UserExportLinkIssued Link

// EventName implements Payload.
func (UserExportLinkIssued) EventName() string { return "user.export_link_issued.v1" }

// EventTopics implements Payload.
func (UserExportLinkIssued) EventTopics() []Topic { return []Topic{Email} }
