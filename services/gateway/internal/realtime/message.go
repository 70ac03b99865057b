package realtime

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// Message is what a client gets. All its clients share it.
type Message struct {
	ID   string // the Position after it
	Type string
	JSON []byte // id, type, occurredAt and data
}

// Heartbeat reports whether the message only says that the connection works.
func (m *Message) Heartbeat() bool { return m.Type == typeHeartbeat }

// audience is who gets a message: one user, or those who listen to a channel.
type audience struct {
	user    string
	channel Channel
}

// The messages about the connection itself.
const (
	typeOpened       = "connection.opened"
	typeHeartbeat    = "connection.heartbeat"
	typeClosing      = "connection.closing"
	typeResumeFailed = "resume.failed"
	typeLag          = "stream.lag"
)

// fact is what a message says.
type fact struct {
	kind string
	at   time.Time
	data any
}

type (
	noData         struct{}
	sessionCreated struct {
		SessionID string `json:"sessionId"`
		Method    string `json:"method"`
	}
	sessionRevoked struct {
		SessionID string `json:"sessionId"`
		Reason    string `json:"reason"`
	}
	userUpdated struct {
		Fields []string `json:"fields"`
	}
	roleChanged struct {
		Role         string `json:"role"`
		PreviousRole string `json:"previousRole"`
	}
	emailSent struct {
		Template string `json:"template"`
	}
	auditAppended struct {
		Count int `json:"count"`
	}
	deadLetterAdded struct {
		Service string `json:"service"`
		Count   int    `json:"count"`
	}
	lagging struct {
		Streams []Lag `json:"streams"`
	}
	closing struct {
		Code             int    `json:"code"`
		Reason           string `json:"reason"`
		ReconnectAfterMs int64  `json:"reconnectAfterMs"`
	}
)

// encode returns the message for a fact. A client that has it has seen everything up to p.
func encode(p Position, f fact) *Message {
	m := &Message{ID: p.String(), Type: f.kind}
	data, err := json.Marshal(struct {
		ID         string    `json:"id"`
		Type       string    `json:"type"`
		OccurredAt time.Time `json:"occurredAt"`
		Data       any       `json:"data"`
	}{m.ID, f.kind, f.at.UTC(), f.data})
	if err != nil {
		panic(fmt.Sprintf("encode %s: %v", f.kind, err)) // Texts, numbers and a time always encode.
	}
	m.JSON = data
	return m
}

// translation is what an event means to clients.
type translation struct {
	to    audience
	fact  fact
	ended string // a session that has ended; its own connections close
}

// reader returns what an event of a name means to its subject. The event is not decodable or not
// for clients if ok is false.
type reader struct {
	name string
	read func(e event.Event) (kind string, data any, ok bool)
}

// decoding returns a reader of the events of one name.
func decoding[P event.Payload](kind string, data func(P) any) reader {
	var zero P
	return reader{zero.EventName(), func(e event.Event) (string, any, bool) {
		p, err := event.Decode[P](e)
		if err != nil {
			return "", nil, false
		}
		return kind, data(p), true
	}}
}

// aboutUsers are the events of each stream that their subject is told of. No message has more
// of an event than what is copied here.
var aboutUsers = [streams][]reader{
	userStream: {
		decoding("session.created", func(p event.UserLoggedIn) any {
			if p.Method == "" {
				p.Method = "password"
			}
			return sessionCreated{p.SessionID, p.Method}
		}),
		decoding("session.revoked", func(p event.SessionRevoked) any { return sessionRevoked{p.SessionID, p.Reason} }),
		decoding("session.revoked", func(p event.UserLoggedOut) any { return sessionRevoked{p.SessionID, "logout"} }),
		decoding("user.updated", func(p event.UserProfileUpdated) any { return userUpdated{p.Fields} }),
		decoding("user.updated", func(event.UserEmailVerified) any { return userUpdated{[]string{"emailVerified"}} }),
		decoding("user.updated", func(event.UserEmailChanged) any { return userUpdated{[]string{"email"}} }),
		decoding("user.role_changed", func(p event.UserRoleChanged) any { return roleChanged{p.After, p.Before} }),
	},
	hintStream: {
		decoding("email.sent", func(p event.EmailSent) any { return emailSent{p.Template} }),
	},
}

// translate returns what an event of a stream means to clients; ok is false if it means nothing
// to them. An event about a user is for that user alone.
func translate(stream int, e event.Event) (t translation, ok bool) {
	if stream == hintStream {
		if t, ok := translateChannel(e); ok {
			return t, true
		}
	}
	known := slices.IndexFunc(aboutUsers[stream], func(r reader) bool { return r.name == e.Name })
	if known < 0 || e.Subject == "" {
		return translation{}, false
	}
	kind, data, ok := aboutUsers[stream][known].read(e)
	if !ok {
		return translation{}, false
	}
	t = translation{to: audience{user: e.Subject}, fact: fact{kind, e.OccurredAt, data}}
	if revoked, ok := data.(sessionRevoked); ok {
		t.ended = revoked.SessionID
	}
	return t, true
}

func translateChannel(e event.Event) (translation, bool) {
	switch e.Name {
	case event.AuditAppended{}.EventName():
		p, err := event.Decode[event.AuditAppended](e)
		return translation{to: audience{channel: Audit}, fact: fact{"audit.appended", e.OccurredAt, auditAppended{p.Count}}}, err == nil
	case event.DeadLetterAdded{}.EventName():
		p, err := event.Decode[event.DeadLetterAdded](e)
		return translation{to: audience{channel: DeadLetters}, fact: fact{"dead_letter.added", e.OccurredAt, deadLetterAdded{e.Producer, p.Count}}}, err == nil
	}
	return translation{}, false
}
