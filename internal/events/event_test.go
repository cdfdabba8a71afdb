package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// The golden files of events are what was sent to accounts. Like those of messages they are never edited.
func TestGoldenEvents(t *testing.T) {
	golden := map[string]Event{}
	for _, f := range decisionFixtures() {
		if e, ok := f.JobEvent(); ok {
			golden[f.name] = e
		}
		if e, ok := f.QuotaEvent(fixtureAccount); ok {
			golden[e.Type] = e
		}
	}
	for _, ceType := range slices.Concat(JobEventTypes(), QuotaEventTypes()) {
		if !slices.ContainsFunc(slices.Collect(maps.Values(golden)), func(e Event) bool { return e.Type == ceType }) {
			t.Errorf("no golden file has an event of type %s", ceType)
		}
	}
	for name, e := range golden {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", "events", name+".json")
			got := append(e.AppendJSON(nil), '\n')
			want, err := os.ReadFile(path)
			if errors.Is(err, fs.ErrNotExist) && *update {
				want, err = got, os.WriteFile(path, got, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, want) {
				t.Errorf("written\n%s\nwant\n%s", got, want)
			}
			if !json.Valid(got) {
				t.Error("it is no JSON")
			}
		})
	}
}

func TestOperatorsBusinessIsNoEvent(t *testing.T) {
	for _, f := range decisionFixtures() {
		switch f.Body.(type) {
		case *AccountOpened, *PlanChanged, *TokenIssued, *TokenRevoked, *MonthArchived, *AccountErased:
			if e, ok := f.JobEvent(); ok {
				t.Errorf("%s is told: %s", f.name, e.AppendJSON(nil))
			}
		}
	}
}

func TestQuotaEventsAreOfTheirAccount(t *testing.T) {
	for _, f := range decisionFixtures() {
		e, ok := f.QuotaEvent("another")
		if _, archived := f.Body.(*MonthArchived); ok != archived {
			t.Errorf("another account is told of %s: %t", f.name, ok)
		}
		if ok && e.Account != "another" {
			t.Errorf("the event of another account is that of %s", e.Account)
		}
	}
}

func TestIsOfType(t *testing.T) {
	for _, c := range []struct {
		ceType, wanted string
		want           bool
	}{
		{TypeJobCaptured, TypeJobCaptured, true},
		{TypeJobCaptured, "jobtally.job.captured", true},
		{"jobtally.job.captured.v12", "jobtally.job.captured", true},
		{"jobtally.job.captured.v2", TypeJobCaptured, false},
		{TypeJobCaptured, "jobtally.job.capture", false},
		{TypeJobCaptured, "jobtally.job", false},
		{"jobtally.job.captured.vx", "jobtally.job.captured", false},
		{TypeJobCaptured, "", false},
	} {
		if got := IsOfType(c.ceType, c.wanted); got != c.want {
			t.Errorf("IsOfType(%q, %q) = %t", c.ceType, c.wanted, got)
		}
	}
	if !KnownEventType("jobtally.quota.reset") || KnownEventType(TypeTokenIssued) {
		t.Error("events are those on jobs and quotas")
	}
}

// Every decision that has a golden file is of one of DecisionTypes, and the other way round: so a new type is in the contract.
func TestDecisionTypesAreAll(t *testing.T) {
	var written []string
	for _, f := range decisionFixtures() {
		written = append(written, TypeOf(f.Body))
	}
	slices.Sort(written)
	types := DecisionTypes()
	slices.Sort(types)
	if written = slices.Compact(written); !slices.Equal(written, types) {
		t.Errorf("decisions are of the types\n%q\nwant\n%q", types, written)
	}
}
