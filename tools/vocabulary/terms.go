package main

// scope says where a retired word counts.
type scope int

const (
	anyWord    scope = iota // as a word of an identifier, a metric, a log message or an error
	identifier              // as a whole identifier
	typeName                // as the name of a type
)

// term is a retired word, in all its forms, and what to use instead.
type term struct {
	forms []string // lower case; of several words, with spaces
	use   string
	scope scope
	prose bool // also wrong in comments and documents
	// after is the word that makes this one right: "dead" for "letter".
	after string
}

const (
	breakerTerm  = "circuit breaker, paused"
	recordTerm   = "consumed-event record"
	timeoutTerm  = "timeout, close timeout or kill timeout"
	checksumTerm = "hourly checksum"
	updateTerm   = "updateOwn, updateOwnIfPassword, updateOwnAfterReauth or updateOwnSensitive"
	deferredTerm = "deferred"
)

var terms = []term{
	{forms: []string{"hold", "held"}, use: breakerTerm},
	{forms: []string{"gate", "gates"}, use: breakerTerm},
	{forms: []string{"breather", "breathers"}, use: "open timeout", prose: true},

	{forms: []string{"receipt", "receipts"}, use: recordTerm},
	{forms: []string{"book"}, use: recordTerm, scope: typeName},
	{forms: []string{"settled"}, use: recordTerm},

	{forms: []string{"ledger", "ledgers"}, use: "published watermark and " + checksumTerm, prose: true},
	{forms: []string{"head"}, use: "published watermark", scope: typeName},
	{forms: []string{"tally", "tallies", "tallied"}, use: checksumTerm, prose: true},
	{forms: []string{"heed", "heeds", "heeded"}, use: "handle a republish request", prose: true},

	{forms: []string{"put off", "puts off", "putting off"}, use: deferredTerm, prose: true},
	{forms: []string{"rejected"}, use: "PermanentlyRejected", scope: typeName},

	{forms: []string{"door", "doors"}, use: "listener", prose: true},
	{forms: []string{"patience"}, use: timeoutTerm, prose: true},
	{forms: []string{"farewell", "farewells"}, use: timeoutTerm, prose: true},
	{forms: []string{"mercy"}, use: timeoutTerm, prose: true},

	{forms: []string{"insist", "insists", "insisted"}, use: "redeliver", prose: true},
	{forms: []string{"look"}, use: "collect acks", scope: identifier},
	{forms: []string{"suspicious"}, use: "quarantine"},
	{forms: []string{"alone"}, use: "quarantine", scope: identifier},

	{forms: []string{"bury", "buries", "buried"}, use: "remove idle consumers, or tombstone", prose: true},

	{forms: []string{"once"}, use: "IdempotencyRecord", scope: typeName},
	{forms: []string{"errmeanwhile"}, use: "ErrConflict", scope: identifier},
	{forms: []string{"told"}, use: "report"},
	{forms: []string{"about"}, use: "info", scope: identifier},
	{forms: []string{"who"}, use: "subject", scope: identifier},
	{forms: []string{"amiss"}, use: "wrong", prose: true},

	{forms: []string{"letter", "letters"}, use: "Message (mail) or DeadLetter", after: "dead"},
	{forms: []string{"world", "worlds"}, use: "fixture"},

	{forms: []string{"changemine", "changematching", "changerecent", "changeown"}, use: updateTerm, scope: identifier},
	{forms: []string{"validateall"}, use: "a name for what it validates", scope: identifier},
}
