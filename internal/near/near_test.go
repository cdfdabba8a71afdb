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
