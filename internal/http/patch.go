package http

import "slices"

const mergePatchContentType = "application/merge-patch+json"

// fixedMembers are those of a job that nothing changes but a capture, or the service itself.
var fixedMembers = []string{"id", "source_url", "captured_via", "captured_at", "updated_at", "version"}

// editableFields are the others.
var editableFields = slices.DeleteFunc(slices.Clone(jobFields), func(f field) bool { return slices.Contains(fixedMembers, f.name) })

// decodePatch reads a JSON merge patch (RFC 7396) of a job, as strictly as decodeJob reads a job: the new text of each field
// that is to change. An optional field that is null, or blank, gets what it has when it is not sent.
func decodePatch(body []byte) (changes map[string]string, err error) {
	d := newJobDecoder(editableFields)
	d.explain = func(name string) string {
		if slices.Contains(fixedMembers, name) {
			return "cannot be changed"
		}
		return ""
	}
	if err := d.read(body, d.field); err != nil {
		return nil, err
	}
	if len(d.errors) > 0 {
		return nil, invalidFields(d.errors)
	}
	changes = map[string]string{}
	for i := range d.fields {
		if d.sent[i] {
			changes[d.fields[i].name] = *d.fields[i].at(&d.job)
		}
	}
	if len(changes) == 0 {
		return nil, newProblem(codeInvalidRequest, "the patch changes nothing; send at least one field")
	}
	return changes, nil
}
