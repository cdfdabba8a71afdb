package near

import "testing"

func TestName(t *testing.T) {
	known := []string{"source_url", "title", "jobtally.job.captured"}
	for name, want := range map[string]string{
		"sourceURL": "source_url", "source-url": "source_url", "tilte": "title", "jobtally.job.capture": "jobtally.job.captured",
		"salary": "", "": "",
	} {
		if got := Name(name, known); got != want {
			t.Errorf("Name(%q) is %q, want %q", name, got, want)
		}
	}
}

func TestType(t *testing.T) {
	known := []string{"jobtally.job.captured.v1", "jobtally.job.deleted.v1"}
	for wanted, want := range map[string]string{
		"jobtally.job.capturd": "jobtally.job.captured", "jobtally.job.capturd.v1": "jobtally.job.captured.v1",
		"jobtally.job.captured.v2": "jobtally.job.captured.v1", "job.deleted": "jobtally.job.deleted", "deleted.v1": "jobtally.job.deleted.v1",
		"jobtally.plan.changed.v1": "", "": "",
	} {
		if got := Type(wanted, known); got != want {
			t.Errorf("Type(%q) is %q, want %q", wanted, got, want)
		}
	}
}
