package event

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
