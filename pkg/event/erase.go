package event

import (
	"encoding/json"
	"fmt"
)

// Erase returns e without the personal data of its subject: the fields of its payload that
// hold such data, and the origin of an action of the subject or of somebody unknown. It
// reports whether there was any. If a field was removed, e is Erased.
func Erase(e Event) (Event, bool, error) {
	var data map[string]json.RawMessage
	if err := json.Unmarshal(e.Data, &data); err != nil {
		return e, false, fmt.Errorf("erase event %s: %w", e.ID, err)
	}
	changed := false
	for _, name := range Personal() {
		if _, ok := data[name]; ok {
			delete(data, name)
			e.Erased, changed = true, true
		}
	}
	if (e.Actor.ID == "" || e.Actor.ID == e.Subject) && (e.IP != "" || e.UserAgent != "") {
		e.IP, e.UserAgent, changed = "", "", true
	}
	if !changed {
		return e, false, nil
	}
	var err error
	if e.Data, err = json.Marshal(data); err != nil {
		return e, false, fmt.Errorf("erase event %s: %w", e.ID, err)
	}
	return e, true, nil
}
