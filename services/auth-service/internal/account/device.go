package account

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/headgate/headgate/pkg/event"
)

// Device is a browser or an app that has signed in to an account. It proves that with a
// device token, which every sign-in returns. A new password ends all of them.
type Device struct {
	AccountID string
	ID        string
	IssuedAt  time.Time // of its token
}

const (
	deviceLifetime = 90 * 24 * time.Hour
	deviceContext  = "device token"
	maxDeviceToken = 512
)

// deviceToken returns a new token of a device, which gets an id unless it is one of owner's
// already.
func (a *Accounts) deviceToken(owner Account, d Device, now time.Time) string {
	if d.AccountID != owner.ID {
		d.ID = uuid.NewString()
	}
	return string(a.atRest.Seal(fmt.Sprintf("%s %s %d", owner.ID, d.ID, now.UnixMicro()), deviceContext))
}

// openDevice returns the device of a token. An invalid or expired token is that of no device.
func (a *Accounts) openDevice(text string) Device {
	if text == "" || len(text) > maxDeviceToken {
		return Device{}
	}
	plain, err := a.atRest.Open(event.Sealed(text), deviceContext)
	parts := strings.Fields(plain)
	if err != nil || len(parts) != 3 {
		return Device{}
	}
	micros, err := strconv.ParseInt(parts[2], 10, 64)
	issued := time.UnixMicro(micros).UTC()
	if err != nil || a.time().Sub(issued) >= deviceLifetime {
		return Device{}
	}
	return Device{AccountID: parts[0], ID: parts[1], IssuedAt: issued}
}
