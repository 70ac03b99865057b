package deadletter

import (
	"net/http"
	"slices"
	"strings"

	"github.com/google/uuid"
	"github.com/gorilla/mux"

	"github.com/headgate/headgate/pkg/cursor"
	"github.com/headgate/headgate/pkg/problem"
	"github.com/headgate/headgate/pkg/web"
)

// Routes returns the administrator's routes for the dead letters, under prefix.
func (s *Store) Routes(prefix string) []web.Route {
	return []web.Route{
		{Method: http.MethodGet, Path: prefix + "/dead-letters", Access: web.AdminOnly, Query: web.TakesPage("type", "reason", "status"), Handler: s.handleList},
		{Method: http.MethodPost, Path: prefix + "/dead-letters/replay", Access: web.AdminOnly.Recently(), Handler: s.handleReplayMatching},
		{Method: http.MethodGet, Path: prefix + "/dead-letters/{id}", Access: web.AdminOnly, Handler: s.handleGet},
		{Method: http.MethodPost, Path: prefix + "/dead-letters/{id}/replay", Access: web.AdminOnly.Recently(), Handler: s.handleReplay},
		{Method: http.MethodDelete, Path: prefix + "/dead-letters/{id}", Access: web.AdminOnly.Recently(), Handler: s.handleDiscard},
	}
}

func (s *Store) handleList(w http.ResponseWriter, r *http.Request) error {
	page, err := web.QueryOf(r).PageByID()
	if err != nil {
		return err
	}
	query := web.QueryOf(r)
	filter := Filter{Type: query["type"], Reason: query["reason"], Status: query["status"]}
	deadLetters, err := s.List(r.Context(), filter, page.After, page.Limit+1)
	if err != nil {
		return err
	}
	return web.SendPage(w, page, deadLetters, func(l DeadLetter) cursor.Position { return cursor.ByID(l.ID) })
}

func (s *Store) handleGet(w http.ResponseWriter, r *http.Request) error {
	return s.sendDetail(w, r, idOf(r))
}

// idOf returns the id in the path. An invalid id becomes one that no dead letter
// has, so that it is answered like any other that does not exist.
func idOf(r *http.Request) string {
	id := mux.Vars(r)["id"]
	if !web.ValidID(id) {
		return uuid.Nil.String()
	}
	return id
}

func (s *Store) sendDetail(w http.ResponseWriter, r *http.Request, id string) error {
	detail, err := s.Get(r.Context(), id)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, detail)
}

func (s *Store) handleReplay(w http.ResponseWriter, r *http.Request) error {
	if err := s.Replay(r.Context(), idOf(r)); err != nil {
		return err
	}
	return s.sendDetail(w, r, idOf(r))
}

func (s *Store) handleReplayMatching(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Type   *string `json:"type"`
		Reason *string `json:"reason"`
		Max    int     `json:"max"`
		DryRun bool    `json:"dryRun"`
	}](w, r)
	if err != nil {
		return err
	}
	if err := problem.Validation(slices.Concat(blank("type", in.Type), blank("reason", in.Reason))...); err != nil {
		return err
	}
	replay := s.ReplayMatching
	if in.DryRun {
		replay = s.PreviewReplay
	}
	outcome, err := replay(r.Context(), Filter{Type: text(value(in.Type)), Reason: text(value(in.Reason))}, in.Max)
	if err != nil {
		return err
	}
	return web.OK(w, http.StatusOK, outcome)
}

// blank refuses a filter that a client sends without a value: it would match everything.
func blank(name string, filter *string) []problem.Field {
	if filter == nil || strings.TrimSpace(*filter) != "" {
		return nil
	}
	return []problem.Field{{Field: name, Code: "required", Message: "Empty filter: give it a value, or leave it out to match all."}}
}

func (s *Store) handleDiscard(w http.ResponseWriter, r *http.Request) error {
	in, err := web.Read[struct {
		Reason string `json:"reason"`
	}](w, r)
	if err != nil {
		return err
	}
	if err := s.Discard(r.Context(), idOf(r), in.Reason); err != nil {
		return err
	}
	return s.sendDetail(w, r, idOf(r))
}
