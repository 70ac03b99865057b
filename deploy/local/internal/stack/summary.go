package stack

import (
	"encoding/json"
	"fmt"
	"strings"
)

// summary is what a newcomer needs: where things are, and three lines to paste.
func summary(f Facts, dir string) string {
	const password = "violet-harbor-42-lamp"
	api := f.GatewayURL + "/api/v1"
	content := "-H 'Content-Type: application/json'"
	signUp := func(who string) string {
		body := fmt.Sprintf(`"{\"email\":\"%s+$(date +%%s)@example.com\",\"password\":\"%s\",\"name\":\"%s\"}"`, who, password, "Ada")
		return "curl -sS " + api + "/auth/signup " + content + " -d " + body
	}
	logIn := "curl -sS " + api + "/auth/login " + content + " -d " + quote(credentials(f.Admin))
	me := "curl -sS " + api + `/user/me -H "Authorization: Bearer $(` + signUp("me") + ` | sed 's/.*"accessToken": *"\([^"]*\)".*/\1/')"`

	return fmt.Sprintf(`
Headgate is ready.

  gateway   %s
  mailbox   %s   (all mail ends here)
  admin     %s   password %s
  facts     %s/%s

Sign up, log in, see who you are; each line works on its own:

%s

%s

%s

Ctrl-C stops everything; the data stays for the next start.

`, f.GatewayURL, f.MailboxURL, f.Admin.Email, f.Admin.Password, dir, factsName, signUp("you"), logIn, me)
}

func credentials(a Admin) string {
	//nolint:gosec,errchkjson // Strings can be encoded, and the owner of the machine may see this password.
	body, _ := json.Marshal(struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	}{a.Email, a.Password})
	return string(body)
}

// quote makes the text one word for a POSIX shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
