package stack

import (
	"encoding/json"
	"fmt"
	"strings"
)

// summary returns the addresses of the stack and three commands to paste.
func summary(f Facts, dir string) string {
	const password = "violet-harbor-42-lamp"
	api := f.GatewayURL + "/api/v1"
	content := "-H 'Content-Type: application/json'"
	signUp := func(user string) string {
		body := fmt.Sprintf(`"{\"email\":\"%s+$(date +%%s)@example.com\",\"password\":\"%s\",\"name\":\"%s\"}"`, user, password, "Ada")
		return "curl -sS " + api + "/auth/signup " + content + " -d " + body
	}
	logIn := "curl -sS " + api + "/auth/login " + content + " -d " + quote(credentials(f.Admin))
	me := "curl -sS " + api + `/user/me -H "Authorization: Bearer $(` + signUp("me") + ` | sed 's/.*"accessToken": *"\([^"]*\)".*/\1/')"`

	return fmt.Sprintf(`
Headgate is ready.

  gateway   %s
  mailbox   %s   (receives all mail)
  admin     %s   password %s
  details   %s/%s

Sign up, sign in as the administrator, and read your own profile. Each command works on its own:

%s

%s

%s

Press Ctrl-C to stop everything. The data is kept for the next start.

`, f.GatewayURL, f.MailboxURL, f.Admin.Email, f.Admin.Password, dir, factsName, signUp("you"), logIn, me)
}

func credentials(a Admin) string {
	//nolint:gosec,errchkjson // Strings can be encoded, and the password is shown on purpose.
	body, _ := json.Marshal(struct {
		Email    string `json:"email"`
		Password string `json:"password"`
	}{a.Email, a.Password})
	return string(body)
}

// quote returns the text as one word of a POSIX shell.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
