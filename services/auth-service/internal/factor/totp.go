package factor

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/pquerna/otp"
	"github.com/pquerna/otp/hotp"
	"github.com/pquerna/otp/totp"
)

const (
	totpPeriod      = 30 // seconds
	totpSecretBytes = 20 // 160 bits (RFC 4226, 4)
)

// totpOptions are the options of RFC 6238 that every app supports.
var totpOptions = hotp.ValidateOpts{Digits: otp.DigitsSix, Algorithm: otp.AlgorithmSHA1}

// TOTPKey is a new TOTP secret.
type TOTPKey struct {
	Secret string // base32
	URL    string // otpauth://, for a QR code
}

// NewTOTPKey returns a random TOTP secret. Apps show it as accountName under issuer, which
// must have a letter.
func NewTOTPKey(issuer, accountName string) (TOTPKey, error) {
	key, err := totp.Generate(totp.GenerateOpts{Issuer: issuer, AccountName: accountName, SecretSize: totpSecretBytes})
	if err != nil {
		return TOTPKey{}, fmt.Errorf("make TOTP secret: %w", err)
	}
	return TOTPKey{Secret: key.Secret(), URL: totpURL(issuer, accountName, key.Secret())}, nil
}

// totpURL returns the URL of a secret, whose label and issuer apps read in different ways: a
// colon ends the issuer, even an encoded one, and a plus sign may be a space or itself. So an
// issuer has no colon, and everything else is encoded.
func totpURL(issuer, accountName, secret string) string {
	issuer = encoded(strings.Join(strings.Fields(strings.ReplaceAll(issuer, ":", " ")), " "))
	return fmt.Sprintf("otpauth://totp/%s:%s?algorithm=SHA1&digits=%d&issuer=%s&period=%d&secret=%s",
		issuer, encoded(accountName), totpDigits, issuer, totpPeriod, secret)
}

// encoded returns text in percent-encoding, for any part of a URL.
func encoded(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// CheckTOTP reports whether code is valid for secret at now, and returns the time
// step that it belongs to. It accepts the steps before and after the current one,
// for clocks that are off, but only steps later than lastStep, so that storing the
// result makes every code valid once (ASVS 6.5.1). The code is that of ParseCode. It fails
// if the secret is not base32.
func CheckTOTP(secret, code string, lastStep int64, now time.Time) (step int64, ok bool, err error) {
	current := now.Unix() / totpPeriod
	for _, s := range []int64{current, current - 1, current + 1} {
		valid, err := hotp.ValidateCustom(code, uint64(s), secret, totpOptions) //nolint:gosec // Time is positive.
		if err != nil && !errors.Is(err, otp.ErrValidateInputInvalidLength) {
			return 0, false, fmt.Errorf("check TOTP code: %w", err)
		}
		if valid && s > lastStep {
			return s, true, nil
		}
	}
	return 0, false, nil
}
