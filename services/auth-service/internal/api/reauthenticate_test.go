package api_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/headgate/headgate/pkg/event"
)

// SEC-36: an old session is not enough to change factors, and with a second factor, the
// password alone is not enough either.
func TestSEC36Reauthentication(t *testing.T) {
	t.Parallel()
	s := newService(t)
	ann := s.signup("ann@example.com").Data.Tokens
	s.advance(16 * time.Minute)
	ann = s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens
	s.want(s.call("POST", "/mfa/totp", ann.AccessToken, nil), 401, "reauth_required")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": "not my password"}), 401, "current_password_invalid")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword}), 200, "")
	id, secret, _ := s.enrol(ann.AccessToken)

	s.advance(16 * time.Minute)
	ann = s.want(s.refresh(ann.RefreshToken), 200, "").Data.Tokens
	remove := func() answer {
		return s.call("DELETE", "/mfa/totp/"+id, ann.AccessToken, fields{"password": goodPassword})
	}
	s.want(remove(), 401, "reauth_required")
	for path, body := range map[string]fields{
		"/change-password": {"currentPassword": goodPassword, "newPassword": otherPassword},
		"/change-email":    {"currentPassword": goodPassword, "newEmail": "new@example.com"},
	} {
		s.want(s.call("POST", path, ann.AccessToken, body), 401, "reauth_required")
	}
	s.want(s.call("DELETE", "/account", ann.AccessToken, fields{"password": goodPassword}), 401, "reauth_required")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword}), 400, "validation_failed")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword, "code": "000000"}), 401, "mfa_code_invalid")
	s.want(s.call("POST", "/reauthenticate", ann.AccessToken, fields{"password": goodPassword, "code": s.code(secret)}), 200, "")

	var list struct {
		Factors []struct{ ID, Kind string }
		Left    int `json:"recoveryCodesLeft"`
	}
	_, _, body := s.do("GET", base+"/mfa/factors", ann.AccessToken, "", "")
	if err := json.Unmarshal(body, &struct{ Data any }{&list}); err != nil || len(list.Factors) != 1 || list.Factors[0].ID != id || list.Left != 10 {
		t.Errorf("factors = %s, %v", body, err)
	}
	s.want(s.call("DELETE", "/mfa/totp/nonsense", ann.AccessToken, fields{"password": goodPassword}), 404, "factor_not_found")
	s.want(remove(), 200, "")
	s.want(remove(), 404, "factor_not_found")
	if s.login("ann@example.com").Data.Tokens.AccessToken == "" {
		t.Error("login asks for a removed factor")
	}
	for topic, kinds := range map[event.Topic][]event.Payload{
		event.Audit: {event.MFAEnrolled{}, event.MFARemoved{}, event.MFAChallengeFailed{}, event.MFARecoveryCodesMade{}},
		event.Email: {event.MFAEnrolled{}, event.MFARemoved{}},
	} {
		for _, kind := range kinds {
			if got := s.count(topic, kind); got != 1 {
				t.Errorf("%d events %s on %s, want 1", got, kind.EventName(), topic)
			}
		}
	}
}
