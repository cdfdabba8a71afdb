package http

import (
	nethttp "net/http"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

func TestQuota(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "GET", "/api/jobs/quota", "")
	x.wants(t, 200, `{"used":0,"limit":2,"remaining":2,"reset_date":"2024-02-01"}`)
	x.wantsHeader(t, "Content-Type: application/json", `ETag: "0.2.2024-02-01"`, "Cache-Control: private, no-cache",
		`RateLimit: "captures";r=2;t=1431570`, `RateLimit-Policy: "captures";q=2;w=2678400`, "Ledger-Position: 0-5")

	same := n.send(t, "GET", "/api/jobs/quota", "", `If-None-Match: "x", W/"0.2.2024-02-01"`)
	same.wants(t, 304, "")
	same.wantsHeader(t, `ETag: "0.2.2024-02-01"`, "Cache-Control: private, no-cache", "Ledger-Position: 0-5", "Content-Type:",
		`RateLimit: "captures";r=2;t=1431570`)

	n.send(t, "POST", "/api/jobs", gopher)
	x = n.send(t, "GET", "/api/jobs/quota", "", `If-None-Match: "0.2.2024-02-01"`)
	x.wants(t, 200, `{"used":1,"limit":2,"remaining":1,"reset_date":"2024-02-01"}`)

	n.now = time.Date(2024, 1, 31, 23, 59, 59, 999_999_999, time.FixedZone("", -3600)) // February in UTC
	x = n.send(t, "GET", "/api/jobs/quota", "")
	x.wants(t, 200, `{"used":0,"limit":2,"remaining":2,"reset_date":"2024-03-01"}`)
}

// What is told of the quota is of the month in which the next capture counts, also where that of the clock is archived.
func TestQuotaOfAnArchivedMonthIsThatOfTheNext(t *testing.T) {
	n := newNode(t)
	n.archived = "2024-01"
	x := n.send(t, "GET", "/api/jobs/quota", "")
	x.wants(t, 200, `{"used":0,"limit":2,"remaining":2,"reset_date":"2024-03-01"}`)
	n.archived = "2023-12"
	x = n.send(t, "GET", "/api/jobs/quota", "")
	x.wants(t, 200, `{"used":0,"limit":2,"remaining":2,"reset_date":"2024-02-01"}`)
}

func TestQuotaOfUnlimitedAccount(t *testing.T) {
	n := newNode(t)
	x := n.send(t, "GET", "/api/jobs/quota", "", "Authorization: Bearer "+n.bob.Reveal())
	x.wants(t, 200, `{"used":0,"limit":-1,"remaining":-1,"reset_date":"2024-02-01"}`)
	x.wantsHeader(t, "RateLimit:", "RateLimit-Policy:", `ETag: "0.-1.2024-02-01"`)
}

func TestQuotaOfUnknownAccount(t *testing.T) {
	n := newNode(t)
	delete(n.state.Accounts, "anna")
	n.send(t, "GET", "/api/jobs/quota", "").wantsProblem(t, codeAccountUnknown)
}

func TestQuotaFormIsWrittenAlikeEverywhere(t *testing.T) {
	for _, q := range []capture.Quota{
		{Month: "2024-01", Used: 15, Limit: 50}, {Month: "2024-12", Used: 60, Limit: 50}, {Month: "2024-02", Used: 1 << 40, Limit: -1},
	} {
		form := formOfQuota(q)
		if got, want := string(form.appendTo(nil)), string(encode(form)); got != want {
			t.Errorf("appendTo writes %s, and encode %s", got, want)
		}
	}
}

func TestRateLimit(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, tt := range []struct {
		now            string
		month          events.Month
		used, limit    int64
		policy, fields string
	}{
		{"2023-02-01T00:00:00Z", "2023-02", 0, 50, `"captures";q=50;w=2419200`, `"captures";r=50;t=2419200`},
		{"2024-02-01T00:00:00Z", "2024-02", 15, 50, `"captures";q=50;w=2505600`, `"captures";r=35;t=2505600`},
		{"2024-04-30T23:59:59Z", "2024-04", 50, 50, `"captures";q=50;w=2592000`, `"captures";r=0;t=1`},
		{"2024-12-31T23:59:58.001Z", "2024-12", 1, 50, `"captures";q=50;w=2678400`, `"captures";r=49;t=2`},
		{"2024-12-31T23:59:59.999Z", "2024-12", 1, 50, `"captures";q=50;w=2678400`, `"captures";r=49;t=1`},
		{"2024-12-31T23:59:59.999Z", "2024-12", 60, 50, `"captures";q=50;w=2678400`, `"captures";r=0;t=1`},
		{"2024-05-02T00:00:00Z", "2024-04", 1, 50, `"captures";q=50;w=2592000`, `"captures";r=49;t=0`},
		{"2024-04-01T00:00:00Z", "2024-04", 0, 0, `"captures";q=0;w=2592000`, `"captures";r=0;t=2592000`},
		{"2024-04-01T00:00:00Z", "2024-04", 7, -1, "", ""},
	} {
		header := nethttp.Header{}
		setRateLimit(header, capture.Quota{Month: tt.month, Used: tt.used, Limit: tt.limit}, at(tt.now))
		if policy, fields := header.Get("RateLimit-Policy"), header.Get("RateLimit"); policy != tt.policy || fields != tt.fields {
			t.Errorf("%s, %d of %d: %s and %s, want %s and %s", tt.now, tt.used, tt.limit, policy, fields, tt.policy, tt.fields)
		}
	}
}
