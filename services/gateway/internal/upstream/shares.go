package upstream

import "sync"

// Client is where a request comes from, as far as that is known. Requests of the zero Client
// are the gateway's own.
type Client struct {
	User    string // the id of the signed-in user
	Network string // see event.Origin.Network
}

// shares counts the requests in flight to an address by user and by network, so that one
// client that is slow to send or to read cannot use up the limit of the address. It is safe
// for concurrent use, and holds only what is in flight.
type shares struct {
	perUser, perNetwork int // 0 is no limit

	mu       sync.Mutex
	inFlight map[Client]int // of a user in any network, and of a network with any user
}

// begin counts a request of a client, unless it has as many as it may have. The caller must
// call end if it returns true.
func (s *shares) begin(from Client) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	user, network := Client{User: from.User}, Client{Network: from.Network}
	if exceeds(s.inFlight[user], s.perUser, from.User) || exceeds(s.inFlight[network], s.perNetwork, from.Network) {
		return false
	}
	s.add(user, 1)
	s.add(network, 1)
	return true
}

func exceeds(inFlight, limit int, id string) bool { return id != "" && limit > 0 && inFlight >= limit }

func (s *shares) end(from Client) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(Client{User: from.User}, -1)
	s.add(Client{Network: from.Network}, -1)
}

func (s *shares) add(part Client, n int) {
	if part == (Client{}) {
		return
	}
	if s.inFlight[part] += n; s.inFlight[part] == 0 {
		delete(s.inFlight, part)
	}
}
