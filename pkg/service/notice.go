package service

import (
	"context"
	"maps"
	"slices"
)

// Notice adds a text to /readyz while notice returns one: something waits for an
// operator although the service can work. It does not affect readiness.
func (s *Service) Notice(name string, notice func(context.Context) string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notices[name] = notice
}

// currentNotices returns the texts by name; nil if there are none.
func (s *Service) currentNotices(ctx context.Context) map[string]string {
	s.mu.Lock()
	notices := maps.Clone(s.notices)
	s.mu.Unlock()
	var texts map[string]string
	for _, name := range slices.Sorted(maps.Keys(notices)) {
		if text := notices[name](ctx); text != "" {
			if texts == nil {
				texts = map[string]string{}
			}
			texts[name] = text
		}
	}
	return texts
}
