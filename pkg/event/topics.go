package event

import "slices"

// Topics returns all streams.
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
func (t Topic) Producers() []string {
	return map[Topic][]string{
		Email: {"auth-service"},
		Audit: {"auth-service", "user-service", "email-service", "audit-service"},
		User:  {"auth-service", "user-service"},
	}[t]
}

// PublishedBy returns the streams on which a service publishes.
func PublishedBy(producer string) []Topic {
	return slices.DeleteFunc(Topics(), func(t Topic) bool { return !slices.Contains(t.Producers(), producer) })
}
