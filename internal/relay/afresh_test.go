package relay

import (
	"net/http"
	"testing"
	"time"

	"jobtally/internal/webhook"
)

// TestAnAttemptThatWasOvertakenCountsForNothing has an endpoint lead elsewhere while its URL is slow to refuse an event.
func TestAnAttemptThatWasOvertakenCountsForNothing(t *testing.T) {
	for _, status := range []int{http.StatusInternalServerError, http.StatusGone} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			h, asked, refuse := newHouse(t), make(chan bool, 1), make(chan bool)
			before := receive(t, func(w http.ResponseWriter, _ string) {
				asked <- true
				<-refuse
				w.WriteHeader(status)
			})
			after := receive(t, nil)
			cfg := h.config()
			cfg.RootCAs, cfg.Schedule = before.trusted(), []time.Duration{0, time.Hour, time.Hour}
			cfg.RootCAs.AddCert(after.Certificate())
			r, _ := run(t, cfg)
			e := create(t, r, "demo", before.URL)
			h.capture(t, "demo")
			<-asked
			must[webhook.Endpoint](t)(r.Change(within(t), "demo", e.ID, 0, webhook.Change{URL: &after.URL}))
			close(refuse)
			after.wantIDs(t, "evt_0-1")
			p := done(t, r, e)
			if p.ConsecutiveFailures != 0 || !p.NextAttempt.IsZero() {
				t.Errorf("the progress is %+v", p)
			}
			if e := must[webhook.Endpoint](t)(r.Get(within(t), "demo", e.ID)); e.State != webhook.Enabled {
				t.Errorf("it is %s", e.State)
			}
		})
	}
}

// TestAClockThatIsPutBack has an attempt fail while the clock is ahead, by a year, or by less than the longest pause.
func TestAClockThatIsPutBack(t *testing.T) {
	for _, ahead := range []time.Duration{365 * 24 * time.Hour, 20 * time.Hour} {
		t.Run(ahead.String(), func(t *testing.T) {
			t.Parallel()
			h, failures, now := newHouse(t), 0, &clock{at: time.Now()}
			rcv := receive(t, func(w http.ResponseWriter, _ string) {
				if failures++; failures < 3 {
					w.WriteHeader(http.StatusInternalServerError)
				}
			})
			cfg := h.config()
			cfg.RootCAs, cfg.Schedule, cfg.Now = rcv.trusted(), []time.Duration{0, time.Hour, time.Hour}, now.now
			r, _ := run(t, cfg)
			e := create(t, r, "demo", rcv.URL)
			now.pass(ahead)
			h.capture(t, "demo")
			rcv.wantIDs(t, "evt_0-1")
			progressed(t, r, e, "it is noted", func(p webhook.Progress) bool { return p.ConsecutiveFailures == 1 })
			now.pass(-ahead)
			rcv.wantIDs(t, "evt_0-1")
			p := progressed(t, r, e, "it is noted", func(p webhook.Progress) bool { return p.ConsecutiveFailures == 2 })
			if p.FailingSince.After(now.now()) {
				t.Errorf("it fails since %s, and it is %s", p.FailingSince, now.now())
			}
			now.pass(2 * time.Hour)
			rcv.wantIDs(t, "evt_0-1")
		})
	}
}

// TestClocksOfRelaysMayDiffer has the pause be kept where another clock is a little behind.
func TestClocksOfRelaysMayDiffer(t *testing.T) {
	at := time.Now()
	p := progressRecord{LastAttempt: at, NextAttempt: at.Add(time.Hour)}
	for behind, want := range map[time.Duration]time.Duration{0: time.Hour, skewAtMost: time.Hour + skewAtMost, skewAtMost + 1: 0} {
		if rest := p.rest(at.Add(-behind)); rest != want {
			t.Errorf("%s behind it rests for %s, want %s", behind, rest, want)
		}
	}
}
