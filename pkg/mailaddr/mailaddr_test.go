package mailaddr_test

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/mailaddr"
)

// SEC-101: what no mail server of the Internet can have, or what programs could read as an
// IP address, is not an address.
func TestSEC101Addresses(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "a", "a@", "@example.com", "a@b@example.com", "a@localhost", "a@example.com.", "a@example..com", "a@.example.com",
		"a@1.2.3.4", "a@[1.2.3.4]", "a@[IPv6:::1]", "a@1.2.3.0x4", "a@1.2.3.0X4f", "a@1.2.3.010", "a@example.123", "a@１.２.３.４", "a@example.0x",
		strings.Repeat("a", 65) + "@example.com", "a@" + strings.Repeat("b", 64) + ".com", "a@-b.com", "a@b-.com",
		"a b@example.com", ".a@example.com", "a..b@example.com", "a@exa mple.com", "a\x00@example.com",
		"a@" + strings.Repeat("b.", 130) + "com",
	} {
		if got, ok := mailaddr.Parse(bad); ok {
			t.Errorf("Parse(%q) = %+v, want invalid", bad, got)
		}
	}
	for text, want := range map[string]mailaddr.Address{
		"Ann@Example.COM":    {Text: "Ann@example.com", Key: "ann@example.com"},
		"a@4u.example.com":   {Text: "a@4u.example.com", Key: "a@4u.example.com"},
		"a@1.2.3.4.com":      {Text: "a@1.2.3.4.com", Key: "a@1.2.3.4.com"},
		"a@b.0xyz":           {Text: "a@b.0xyz", Key: "a@b.0xyz"},
		"a@bücher.example":   {Text: "a@xn--bcher-kva.example", Key: "a@xn--bcher-kva.example"},
		"K+tag@example.com":  {Text: "K+tag@example.com", Key: "k+tag@example.com"},
		"a@ＥＸＡＭＰＬＥ.com":      {Text: "a@example.com", Key: "a@example.com"},
		"a@example。com":      {Text: "a@example.com", Key: "a@example.com"},
		"a@xn--bcher-kva.de": {Text: "a@xn--bcher-kva.de", Key: "a@xn--bcher-kva.de"},
	} {
		for _, pasted := range []string{text, " " + text + "\t", "\u00a0" + text + "\r\n", "\u202a" + text + "\u202c", "\ufeff" + text + "\u200b"} {
			if got, ok := mailaddr.Parse(pasted); !ok || got != want {
				t.Errorf("Parse(%q) = %+v, %t, want %+v", pasted, got, ok, want)
			}
		}
	}
}

func TestMailbox(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"ann@example.com":        "ann@example.com",
		"ann+a+b@example.com":    "ann@example.com",
		"a.nn@example.com":       "a.nn@example.com",
		"a.n.n+x@gmail.com":      "ann@gmail.com",
		"ann@googlemail.com":     "ann@gmail.com",
		"+@example.com":          "+@example.com",
		"ann@gmail.com.evil.com": "ann@gmail.com.evil.com",
	} {
		if got := mailaddr.Mailbox(key); got != want {
			t.Errorf("Mailbox(%q) = %q, want %q", key, got, want)
		}
	}
}

// The key of an address is an address with the same key, and so is its text.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"Ann@Example.com", "a@bücher.example", "a@１.２", "K+tag@example.com", "a@example。com", " a@b.c"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		a, ok := mailaddr.Parse(text)
		if !ok {
			return
		}
		for _, same := range []string{a.Text, a.Key} {
			if again, ok := mailaddr.Parse(same); !ok || again.Key != a.Key {
				t.Errorf("Parse(%q) = %+v, %t, want the key %q", same, again, ok, a.Key)
			}
		}
		if box := mailaddr.Mailbox(a.Key); mailaddr.Mailbox(box) != box {
			t.Errorf("Mailbox(%q) = %q, want it to be its own", a.Key, box)
		}
	})
}
