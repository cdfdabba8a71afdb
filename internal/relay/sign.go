package relay

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"jobtally/internal/webhook"
)

const (
	secretPrefix  = "whsec_"
	secretBytes   = 32
	idPrefix      = "wh_"
	messagePrefix = "evt_"
)

var idForm = regexp.MustCompile(`^` + idPrefix + `[a-z2-7]{20}$`)

// errUnsigned is the error of an endpoint without a secret that is valid, as only a person writes one.
var errUnsigned = errors.New("no secret is valid")

// sign returns the signatures of a message as they stand in webhook-signature: one of each secret that is valid.
func sign(secrets []webhook.Secret, id string, at time.Time, body []byte) (string, error) {
	var signatures []string
	for _, s := range secrets {
		if !s.ExpiresAt.IsZero() && !at.Before(s.ExpiresAt) {
			continue
		}
		key, err := keyOfSecret(s.Value)
		if err != nil {
			return "", errUnsigned
		}
		mac := hmac.New(sha256.New, key)
		fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
		signatures = append(signatures, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if len(signatures) == 0 {
		return "", errUnsigned
	}
	return strings.Join(signatures, " "), nil
}

func keyOfSecret(value string) ([]byte, error) {
	return base64.StdEncoding.DecodeString(strings.TrimPrefix(value, secretPrefix))
}

func newSecret() webhook.Secret {
	return webhook.Secret{Value: secretPrefix + base64.StdEncoding.EncodeToString(random(secretBytes))}
}

// newID returns an id with 100 random bits.
func newID() string {
	return idPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random(13)))[:20]
}

func validID(id string) bool { return idForm.MatchString(id) }

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // which never fails
	return b
}
