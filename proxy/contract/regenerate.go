package contract

import (
	"strconv"
	"time"

	"gatehouse/keystore"
	"gatehouse/policy"
	"gatehouse/proxy/problem"
)

// maxGrace is the longest grace of a key that is replaced, in seconds: a week.
const maxGrace = 7 * 24 * 60 * 60

// RegenerateKey is the body of a request that replaces a key. It may be left out.
type RegenerateKey struct {
	GracePeriodSeconds Given[int64] `json:"grace_period_seconds"`
}

// Parse returns for how long the old token is to go on working.
func (k RegenerateKey) Parse() (time.Duration, error) {
	if k.GracePeriodSeconds.Value < 0 || k.GracePeriodSeconds.Value > maxGrace {
		detail := "The grace period must be from 0 to " + strconv.Itoa(maxGrace) + " seconds."
		return 0, problem.Invalid(problem.FieldError{Field: "grace_period_seconds", Detail: detail})
	}
	return time.Duration(k.GracePeriodSeconds.Value) * time.Second, nil
}

// regeneratedKey is a key as the answer shows it that also has its token, and
// what becomes of the one that it replaces.
type regeneratedKey struct {
	createdKey
	OldID       string `json:"old_id"`
	GraceEndsAt *int64 `json:"grace_ends_at"`
}

// Regenerated is the answer to a request that replaced the key old: its token
// has stopped working, or works until a grace has passed since the new key was
// made, and never past its own expiry.
func Regenerated(k policy.Key, t keystore.Token, old policy.KeyID, grace time.Duration) Envelope {
	data := regeneratedKey{createdKey: showCreated(k, t), OldID: string(old)}
	note := "The old token has stopped working."
	if grace > 0 && !k.Expiry.Passed(k.CreatedAt) {
		ends := k.CreatedAt.Add(grace).Unix()
		if !k.Expiry.Outlasts(policy.ExpiresAt(ends)) {
			ends = k.Expiry.Unix()
		}
		data.GraceEndsAt = &ends
		note = "The old token goes on working until " + time.Unix(*data.GraceEndsAt, 0).UTC().Format(time.RFC3339) + "."
	}
	return Envelope{Success: true, Message: "API key regenerated successfully", Data: data, Warning: onceWarning, Note: note}
}
