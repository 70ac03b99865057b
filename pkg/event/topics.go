package event

import "slices"

// Topics returns all streams that carry every one of their events. Realtime is not among them.
func Topics() []Topic { return []Topic{Email, Audit, User} }

// Groups returns the consumer groups of a stream, which are named for their services.
// Each of them must handle every event of the stream, so an event stays in Redis until
// all of them have acknowledged it. Other groups have no say in that.
func (t Topic) Groups() []string {
	return map[Topic][]string{
		Email: {"email-service"},
		Audit: {"audit-service"},
		User:  {"user-service"},
	}[t]
}

// Producers returns the services that publish on a stream. Nobody can know that a consumer
// has everything before each of them has said what it has published.
// The result is shared: the caller must not change it.
func (t Topic) Producers() []string { return producers[t] }

// It is made once, because every event is checked against it.
var producers = map[Topic][]string{
	Email: {"auth-service"},
	Audit: {"auth-service", "user-service", "email-service", "audit-service"},
	User:  {"auth-service", "user-service"},

	Realtime: {"user-service", "email-service", "audit-service"},
}

// Producers returns all services that publish.
func Producers() []string {
	var all []string
	for _, t := range Topics() {
		all = append(all, t.Producers()...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// PublishedBy returns the streams on which a service publishes.
func PublishedBy(producer string) []Topic {
	return slices.DeleteFunc(Topics(), func(t Topic) bool { return !slices.Contains(t.Producers(), producer) })
}

// publishers are the producers of events, by type, that auth-service does not publish
// alone. An event that several services publish is about the service itself, such as a
// request that it has refused.
var publishers = map[string][]string{
	"access.denied":         Audit.Producers(),
	"audit.appended":        {"audit-service"},
	"audit.read":            Audit.Producers(),
	"request.refused":       Audit.Producers(),
	"dead_letter.added":     {"user-service", "email-service", "audit-service"},
	"dead_letter.replayed":  {"user-service", "email-service", "audit-service"},
	"dead_letter.discarded": {"user-service", "email-service", "audit-service"},
	"gap.accepted":          {"user-service", "email-service", "audit-service"},
	"email.deferred":        {"email-service"},
	"email.failed":          {"email-service"},
	"email.resumed":         {"email-service"},
	"email.sent":            {"email-service"},
	"user.data_exported":    {"user-service"},
	"user.profile_updated":  {"user-service"},
}

// PublishersOf returns the services that may publish events of a name, in any version. It
// returns nil for a type that this release does not know: a newer one may have added it to
// any producer.
func PublishersOf(name string) []string {
	kind, _ := splitName(name)
	if only, ok := publishers[kind]; ok {
		return only
	}
	if knownTypes[kind] {
		return []string{"auth-service"}
	}
	return nil
}

// MayPublish reports whether a producer may publish events of a name.
func MayPublish(producer, name string) bool {
	allowed := PublishersOf(name)
	return allowed == nil || slices.Contains(allowed, producer)
}

var knownTypes = func() map[string]bool {
	types := map[string]bool{}
	for _, p := range Contracts() {
		kind, _ := splitName(p.EventName())
		types[kind] = true
	}
	return types
}()
