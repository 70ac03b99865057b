package api_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/web"
	"github.com/headgate/headgate/services/email-service/internal/api"
)

func TestRoutes(t *testing.T) {
	t.Parallel()
	s := newService(t)
	to := newAddress()
	e := s.requested(to, nil)
	s.publish(e, s.requested(newAddress(), nil))
	s.wantMails(to, 1)
	s.wantAcknowledged()
	var list struct {
		Data []struct{ ID, EventID, To, Status, Template string }
		Meta web.Meta
	}
	var single struct {
		Data struct{ ID, EventID, MessageID, SentAt string }
	}
	get := func(path, role string) int {
		list.Data = nil
		return s.get(api.Prefix+path, role, &list)
	}
	for _, path := range []string{"/messages", "/messages/" + uuid.NewString(), "/dead-letters"} {
		for role, want := range map[string]int{"": 401, "user": 403, "auditor": 403} {
			if status := get(path, role); status != want {
				t.Errorf("GET %s as %q = %d, want %d", path, role, status, want)
			}
		}
	}
	if status := get("/messages?limit=1", "admin"); status != 200 || len(list.Data) != 1 || !list.Meta.HasMore {
		t.Errorf("first page = %d %+v", status, list)
	}
	if status := get("/messages?to="+to+"&status=sent&template=verification", "admin"); status != 200 || len(list.Data) != 1 || list.Data[0].EventID != e.ID {
		t.Fatalf("filtered = %d %+v", status, list)
	}
	// The request of the user that led to the mail finds it.
	if status := get("/messages?requestId=request-1&to="+to, "admin"); status != 200 || len(list.Data) != 1 || list.Data[0].EventID != e.ID {
		t.Errorf("by request id = %d %+v", status, list)
	}
	if status := get("/messages?requestId=request-2", "admin"); status != 200 || len(list.Data) != 0 {
		t.Errorf("by another request id = %d %+v", status, list)
	}
	if get("/messages?to="+to, "admin"); len(list.Data) != 1 {
		t.Fatalf("by recipient = %+v", list)
	}
	status := s.get(api.Prefix+"/messages/"+list.Data[0].ID, "admin", &single)
	if status != 200 || single.Data.EventID != e.ID || single.Data.MessageID != e.ID+"@example.com" || single.Data.SentAt == "" {
		t.Errorf("one = %d %+v", status, single)
	}
	cursor := func(key string) string { return base64.RawURLEncoding.EncodeToString([]byte(key)) }
	id := list.Data[0].ID
	for path, want := range map[string]int{
		"/messages/" + strings.ToUpper(id): 404, "/messages/urn:uuid:" + id: 404, "/messages/{" + id + "}": 404, "/messages/" + strings.ReplaceAll(id, "-", ""): 404,
		"/messages?cursor=" + cursor(strings.ToUpper(id)): 400, "/messages?cursor=" + cursor("urn:uuid:"+id): 400,
		"/messages/" + uuid.NewString(): 404, "/messages/junk": 404, "/messages?status=lost": 400, "/messages?statuss=failed": 400, "/messages?status=": 400, "/messages?to=a;status=failed": 400, "/messages?to=%00": 400,
		"/messages?cursor=anVuaw": 400, "/messages?status=queued": 200, "/messages?status=withheld": 200, "/messages?requestId=%00": 400, "/nothing": 404,
	} {
		if status := get(path, "admin"); status != want {
			t.Errorf("GET %s = %d, want %d", path, status, want)
		}
	}
}
