package http

import (
	"encoding/json"
	"slices"

	"jobtally/internal/events"
)

const mergePatchContentType = "application/merge-patch+json"

// fixedMembers are those of a job that nothing changes but a capture, or the service itself.
var fixedMembers = []string{"id", "source_url", "captured_via", "captured_at", "updated_at", "version"}

// decodePatch reads a JSON merge patch (RFC 7396) of a job, as strictly as decodeJob reads a job: the new text of each field
// that is to change. An optional field that is null, or blank, gets what it has when it is not sent.
func decodePatch(body []byte) (changes map[string]string, err error) {
	d := newJobDecoder()
	d.names = events.EditableFields()
	d.other = func(name string, _ json.RawMessage) bool {
		fixed := slices.Contains(fixedMembers, name)
		if fixed {
			d.wrong(name, "cannot be changed")
		}
		return fixed
	}
	if err := d.whole(body); err != nil {
		return nil, err
	}
	if len(d.errors) > 0 {
		return nil, invalidFields(d.errors)
	}
	changes = map[string]string{}
	for i := range jobFields {
		if d.sent[i] {
			changes[jobFields[i].name] = *jobFields[i].at(&d.job)
		}
	}
	if len(changes) == 0 {
		return nil, newProblem(codeInvalidRequest, "the patch changes nothing; send at least one field")
	}
	return changes, nil
}
