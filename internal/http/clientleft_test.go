package http

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"

	"jobtally/internal/events"
)

// Whoever opens and closes connections must not be able to fill the log, or to have it tell of a ledger that fails.
func TestTheLogDoesNotTellOfClientsThatLeft(t *testing.T) {
	for _, path := range []string{"/api/jobs", "/api/jobs/batch"} {
		n := newLimitedNode(t, Limits{})
		ctx, leave := context.WithCancel(t.Context())
		n.Append = func(ctx context.Context, _ *events.Request) (events.Position, error) {
			leave()
			<-ctx.Done()
			return events.Position{}, fmt.Errorf("%w: %w", events.ErrUnknownOutcome, ctx.Err())
		}
		n.AppendAll = func(ctx context.Context, requests []*events.Request) ([]events.Position, []error) {
			p, err := n.Append(ctx, requests[0])
			return []events.Position{p}, []error{err}
		}
		n.build(Limits{})
		body := map[string]string{"/api/jobs": gopher, "/api/jobs/batch": `{"jobs":[` + gopher + `]}`}[path]
		n.answer(httptest.NewRequestWithContext(ctx, "POST", path, strings.NewReader(body)), home, n.anna.Reveal(), "Content-Type: application/json")
		if log := n.log.String(); strings.Contains(log, `"level":"ERROR"`) || !strings.Contains(log, `"answered"`) {
			t.Errorf("%s: the log:\n%s", path, log)
		}
	}
}
