package web

import (
	"bytes"
	jsonv1 "encoding/json"
	"errors"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

var errNull = errors.New("null")

// refuseNull refuses null for every value except raw JSON and one of any type, whose owner
// decides what it means. Elsewhere null would leave a field empty, as if the client had not
// sent it, and a missing filter selects everything.
var refuseNull = json.UnmarshalFromFunc(func(d *jsontext.Decoder, to any) error {
	switch to.(type) {
	case *jsonv1.RawMessage, *jsontext.Value, *any:
		return errors.ErrUnsupported
	}
	if d.PeekKind() == 'n' {
		return errNull
	}
	return errors.ErrUnsupported
})

// strict returns the options that decode body. Looking at every value is slow, and almost no
// body has a null.
func strict(body []byte) json.Options {
	unknown := json.RejectUnknownMembers(true)
	if !bytes.Contains(body, []byte("null")) {
		return unknown
	}
	return json.JoinOptions(unknown, json.WithUnmarshalers(refuseNull))
}
