package relay

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"jobtally/internal/webhook"
)

// TestStoredForms pins what lies in the bucket, the log and the poison queue: another version reads it.
func TestStoredForms(t *testing.T) {
	at := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	for form, value := range map[string]any{
		`{"url":"https://hooks.example","types":["jobtally.job.captured"],"description":"d","state":"enabled","state_since":"2026-11-22T12:00:00Z","created_at":"2026-11-22T12:00:00Z","after":7,"secrets":[{"value":"whsec_a"},{"value":"whsec_b","expires_at":"2026-11-22T12:00:00Z"}]}`: &endpointRecord{
			URL: "https://hooks.example", Types: []string{"jobtally.job.captured"}, Description: "d", State: webhook.Enabled, StateSince: at, CreatedAt: at, After: 7,
			Secrets: []secretRecord{{Value: "whsec_a"}, {Value: "whsec_b", ExpiresAt: at}},
		},
		`{}`: &progressRecord{},
		`{"event":"0-8","attempts":2,"done":"0-7","failures":3,"failing_since":"2026-11-22T12:00:00Z","last_attempt":"2026-11-22T12:00:00Z","next_attempt":"2026-11-22T12:00:00Z","last_success":"2026-11-22T12:00:00Z","waits":"w"}`: &progressRecord{
			Event: "0-8", Attempts: 2, Done: "0-7", Failures: 3, FailingSince: at, LastAttempt: at, NextAttempt: at, LastSuccess: at, Waits: "w",
		},
		`{"message_id":"evt_0-8","position":8,"type":"jobtally.job.captured.v1","cause":"event","attempt":2,"at":"2026-11-22T12:00:00Z","duration_ns":1000,"status":503,"error":"e","outcome":"failed","next_attempt":"2026-11-22T12:00:00Z"}`: &deliveryRecord{
			MessageID: "evt_0-8", Position: 8, Type: "jobtally.job.captured.v1", Cause: webhook.ByEvent, Attempt: 2, At: at, Duration: time.Microsecond,
			Status: 503, Error: "e", Outcome: webhook.Failed, NextAttempt: at,
		},
		`{"position":8,"event":"0-8-threshold","attempts":10,"error":"e","at":"2026-11-22T12:00:00Z"}`: &poisonRecord{
			Position: 8, Event: "0-8-threshold", Attempts: 10, Error: "e", At: at,
		},
	} {
		if written := string(must[[]byte](t)(json.Marshal(value))); written != form {
			t.Errorf("written:\n%s\nwant:\n%s", written, form)
		}
		read := reflect.New(reflect.TypeOf(value).Elem()).Interface()
		ok(t, json.Unmarshal([]byte(form), read))
		if !reflect.DeepEqual(read, value) {
			t.Errorf("read %+v, want %+v", read, value)
		}
	}
}

// TestPausesAreThoseOfTheSchedule has pauses grow with the failures of the endpoint once the circuit is open.
func TestPausesAreThoseOfTheSchedule(t *testing.T) {
	schedule := DefaultSchedule()
	for _, c := range []struct {
		attempts, failures int
		want               time.Duration
	}{
		{1, 1, 5 * time.Second}, {2, 2, 5 * time.Minute}, {1, 4, 5 * time.Second}, {1, 5, 5 * time.Hour}, {1, 9, 24 * time.Hour}, {1, 1000, 24 * time.Hour},
	} {
		if is := pauseAfter(schedule, c.attempts, c.failures); is != c.want {
			t.Errorf("%d attempts, %d failures: %s, want %s", c.attempts, c.failures, is, c.want)
		}
	}
	for range 1000 {
		if is := jittered(time.Hour); is < 54*time.Minute || is > 66*time.Minute {
			t.Fatalf("an hour became %s", is)
		}
	}
	if jittered(0) != 0 {
		t.Error("no pause became one")
	}
}
