package api_test

import ("os";"testing";"github.com/headgate/headgate/pkg/event")

func TestZZShots(t *testing.T) {
	s := newService(t)
	app := s.app("https://app.example.com")
	save := func(n string, p landed) { os.WriteFile("/tmp/pv/"+n+".html", []byte(p.body), 0o644) }
	v := s.verifyLink("annabelle@example.com")
	save("verify", app.open("/verify-email", v))
	save("verified", app.press("/verify-email", v))
	save("used", app.open("/verify-email", v))
	s.forgot("annabelle@example.com")
	r := s.link(event.UserResetLinkIssued{}, "annabelle@example.com", 1)
	save("reset", app.open("/reset-password", r))
	save("fault", app.press("/reset-password", r, "password", "short"))
	save("dead", s.open("/change-email/revert", "x"))
}
