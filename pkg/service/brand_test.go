package service_test

import (
	"strings"
	"testing"

	"github.com/headgate/headgate/pkg/service"
)

func TestBrandName(t *testing.T) {
	t.Parallel()
	for name, valid := range map[string]bool{
		"Headgate": true, `Acme "Ü:+"`: true, "株式会社": true, "Zoë & Söhne <GmbH>": true, "A 👩\u200d🚀": true, strings.Repeat("ä", 50): true,
		"": false, " Acme": false, "Acme ": false, "Acme\nBcc: eve@example.com": false, "Acme\r": false, "A\u202ecme": false, "A\u2028b": false,
		"A\x00": false, "\xff": false, "123": false, strings.Repeat("a", 51): false,
	} {
		if err := (service.Brand{BrandName: name}).Validate(); (err == nil) != valid {
			t.Errorf("%q: %v, want valid: %t", name, err, valid)
		}
	}
}
