package http

import (
	"context"
	"slices"
	"strings"
	"testing"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// recording are calls that record something, with bodies that are valid.
var recording = map[string][2]string{
	"POST /api/jobs":                   {"application/json", `{"source_url":"https://example.com/1","title":"T","company":"C"}`},
	"POST /api/jobs/batch":             {"application/x-ndjson", `{"source_url":"https://example.com/1","title":"T","company":"C"}`},
	"PATCH " + jobPath(testJob):        {mergePatchContentType, `{"status":"applied"}`},
	"DELETE " + jobPath(testJob):       {},
	"POST /api/admin/accounts":         {"application/json", `{"account":"carl"}`},
	"PUT " + annasAccount + "/plan":    {"application/json", `{"plan":"pro"}`},
	"POST " + annasAccount + "/tokens": {"application/json", `{}`},
	"DELETE " + annasAccount:           {},

	"POST " + webhooksPath:            {"application/json", `{"url":"https://example.com/hooks"}`},
	"PATCH " + testWebhook:            {mergePatchContentType, `{"enabled":false}`},
	"DELETE " + testWebhook:           {},
	"POST " + testWebhook + "/secret": {"application/json", `{}`},
	"POST " + testWebhook + "/test":   {},
}

const testWebhook = webhooksPath + "/wh_aaaaaaaaaaaaaaaaaaaa"

const testJob = "job_aaaaaaaaaaaaaaaaaaaaaaaa"

// A call that waits, for the rest of its body or as here for a position, has no more of it than its token.
func TestNothingIsRecordedForATokenThatWasRevokedMeanwhile(t *testing.T) {
	for call, body := range recording {
		for name, gone := range map[string]struct {
			tokens func(*node, []capture.Token) []capture.Token // what is known of the token then
			want   code
		}{
			"revoked": {func(n *node, issued []capture.Token) []capture.Token { issued[0].Revoked = true; return issued }, codeTokenRevoked},
			"erased with its account, which is open again": {func(*node, []capture.Token) []capture.Token { return nil }, codeTokenUnknown},
		} {
			t.Run(call+" "+name, func(t *testing.T) {
				n, asBob := newAdministered(t)
				tokens, waited := n.Tokens, false
				n.Tokens = func(ctx context.Context, id string) ([]capture.Token, error) {
					issued, err := tokens(ctx, id)
					if waited {
						issued = gone.tokens(n, slices.Clone(issued))
					}
					return issued, err
				}
				n.Await = func(context.Context, events.Position) (events.Decision, error) {
					<-time.After(acceptedFor)
					waited = true
					return events.Decision{}, nil
				}
				method, path, _ := strings.Cut(call, " ")
				headers := []string{asBob, "Ledger-Position: 0-6"}
				if body[0] != "" {
					headers = append(headers, "Content-Type: "+body[0])
				}
				n.hooks.add("bob", "wh_aaaaaaaaaaaaaaaaaaaa")
				n.send(t, method, path, body[1], headers...).wantsProblem(t, gone.want)
				if len(n.requests) != 5 {
					t.Errorf("recorded %+v", n.requests[5:])
				}
				if n.hooks.changes != 0 {
					t.Errorf("webhooks were changed or tested: %d", n.hooks.changes)
				}
			})
		}
	}
}
