package password

import (
	"encoding/base64"
	"strconv"
	"strings"
)

// phc is a hash in the PHC string format: $id$v=19$name=value,…$salt$hash.
type phc struct {
	id         string
	version    int // 0 if it has none
	params     map[string]string
	salt, hash []byte
}

// maxPHC bounds the length of a hash. Salt and hash have up to 64 bytes each.
const maxPHC = 512

// parsePHC parses a hash with salt and hash. Parameters may be in any order, but none may be
// there twice. Base64 may be padded, although the format does without.
func parsePHC(text string) (phc, error) {
	parts := strings.Split(text, "$")
	if len(text) > maxPHC || len(parts) < 5 || parts[0] != "" {
		return phc{}, errHash
	}
	s, rest := phc{id: parts[1], params: map[string]string{}}, parts[2:]
	if version, ok := strings.CutPrefix(rest[0], "v="); ok && !strings.Contains(version, ",") {
		n, err := decimal(version, 31)
		if err != nil {
			return phc{}, errHash
		}
		s.version, rest = int(n), rest[1:] //nolint:gosec // It has 31 bits.
	}
	if len(rest) != 3 {
		return phc{}, errHash
	}
	for param := range strings.SplitSeq(rest[0], ",") {
		name, value, ok := strings.Cut(param, "=")
		if _, twice := s.params[name]; !ok || twice || value == "" {
			return phc{}, errHash
		}
		s.params[name] = value
	}
	var saltErr, hashErr error
	s.salt, saltErr = decodeBase64(rest[1])
	s.hash, hashErr = decodeBase64(rest[2])
	if saltErr != nil || hashErr != nil || len(s.salt) > 64 || len(s.hash) > 64 {
		return phc{}, errHash
	}
	return s, nil
}

// take returns a parameter and removes it, so that the unknown ones are left.
func (s phc) take(name string) (value string, ok bool) {
	value, ok = s.params[name]
	delete(s.params, name)
	return value, ok
}

// number is take for a required decimal number of up to bits bits.
func (s phc) number(name string, bits int) (uint64, error) {
	value, _ := s.take(name)
	return decimal(value, bits)
}

// decimal parses a number as the format demands: digits without leading zeros.
func decimal(text string, bits int) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, bits)
	if err != nil || text != strconv.FormatUint(n, 10) {
		return 0, errHash
	}
	return n, nil
}

func decodeBase64(text string) ([]byte, error) {
	if strings.HasSuffix(text, "=") {
		return base64.StdEncoding.Strict().DecodeString(text)
	}
	return base64.RawStdEncoding.Strict().DecodeString(text)
}
