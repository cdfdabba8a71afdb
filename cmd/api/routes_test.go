package main

import (
	"net/http"
	"strings"
	"testing"
)

func TestBrowserExtensionsMayCallFromAnyOrigin(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	for path, methods := range map[string]string{
		"/api/jobs": "POST", "/api/jobs/quota": "GET", "/api/jobs/job_x": "PATCH", "/api/jobs/job_y": "DELETE", "/api/jobs/batch": "POST",
	} {
		r, err := s.call(http.MethodOptions, path, nil, "Authorization:", "Origin: chrome-extension://abcdefgh",
			"Access-Control-Request-Method: "+methods, "Access-Control-Request-Headers: authorization,content-type,idempotency-key",
			"Access-Control-Request-Private-Network: true")
		if err != nil {
			t.Fatal(err)
		}
		r.wants(t, http.StatusNoContent)
		for name, want := range map[string]string{
			"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Methods": methods,
			"Access-Control-Allow-Headers":         "Authorization, Content-Type, Idempotency-Key, Prefer, If-Match",
			"Access-Control-Allow-Private-Network": "true",
		} {
			if got := r.header.Get(name); !strings.Contains(got, want) {
				t.Errorf("preflight of %s: %s is %q, want %q", path, name, got, want)
			}
		}
	}
	for _, r := range []reply{
		s.capture(t, jobURL(1), "Origin: https://example.com").wants(t, http.StatusCreated),
		s.get(t, "/api/jobs/quota", "Origin: https://example.com", "Authorization:").wants(t, http.StatusUnauthorized),
	} {
		if r.header.Get("Access-Control-Allow-Origin") != "*" || !strings.Contains(r.header.Get("Access-Control-Expose-Headers"), "Ledger-Position") {
			t.Errorf("a page cannot read the answer: %v", r.header)
		}
	}
}

func TestWrongMethodsAndPathsAreProblems(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	for _, c := range []struct {
		call   string
		status int
		code   string
		allow  string
	}{
		{"DELETE /api/jobs", 405, "method_not_allowed", "POST"},
		{"POST /api/jobs/quota", 405, "method_not_allowed", "GET"},
		{"PUT /livez", 405, "method_not_allowed", "GET"},
		{"GET /api/job", 404, "not_found", ""},
		{"GET /nowhere", 404, "not_found", ""},
		{"GET /api/jobs/job_unknown", 404, "job_not_found", ""},
		{"GET /api/jobs/captures/0-99", 404, "capture_not_found", ""},
		{"GET /api/jobs/captures/0-1", 404, "capture_not_found", ""}, // the opening of the account is none
		{"GET /api/jobs/captures/9-1", 404, "capture_not_found", ""},
		{"GET /api/jobs/captures/seven", 400, "invalid_position", ""},
	} {
		method, path, _ := strings.Cut(c.call, " ")
		r, err := s.call(method, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.wantsProblem(t, c.status, c.code)
		if allow := r.header.Get("Allow"); !strings.Contains(allow, c.allow) || c.allow == "" && allow != "" {
			t.Errorf("%s: Allow: %s, want %s", c.call, allow, c.allow)
		}
	}
}

func TestHealthNeedsNoToken(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	for path, want := range map[string]string{"/livez": `{"status":"alive"}`, "/readyz": `{"status":"ready"}`} {
		if r := s.get(t, path, "Authorization:").wants(t, http.StatusOK); r.body != want {
			t.Errorf("%s says %s", path, r.body)
		}
	}
}

func TestTheQuotaIsNotSentAgainWhenNothingChanged(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	first := s.get(t, "/api/jobs/quota").wants(t, http.StatusOK)
	if want := `{"used":0,"limit":50,"remaining":50,"reset_date":"2026-12-01"}`; first.body != want {
		t.Errorf("the quota is %s, want exactly %s", first.body, want)
	}
	known := "If-None-Match: " + first.header.Get("ETag")
	s.get(t, "/api/jobs/quota", known).wants(t, http.StatusNotModified)
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	s.get(t, "/api/jobs/quota", known).wants(t, http.StatusOK)
}

func TestACaptureCanBeLookedUpLater(t *testing.T) {
	t.Parallel()
	s := start(t, t.TempDir(), midNovember)
	later := s.capture(t, jobURL(1), "Prefer: respond-async").wants(t, http.StatusAccepted)
	told := s.get(t, later.header.Get("Location"), "Prefer: wait=10").wants(t, http.StatusOK)
	if later.Outcome != "pending" || told.Outcome != "captured" || told.Receipt.Position != later.Receipt.Position {
		t.Errorf("first %s, later %s", later.body, told.body)
	}
	told.wantsReceipt(t)
	s.get(t, "/api/jobs/"+told.Job.ID).wants(t, http.StatusOK)
	other := s.accounts(t, 1, "other")[0]
	other.get(t, later.header.Get("Location")).wantsProblem(t, http.StatusNotFound, "capture_not_found")
	other.get(t, "/api/jobs/"+told.Job.ID).wantsProblem(t, http.StatusNotFound, "job_not_found")
}
