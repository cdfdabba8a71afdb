package projections

import (
	"context"
	"errors"
	"fmt"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// receiptRows is why a receipt compares no rows.
const receiptRows = "a receipt is proved by the ledger alone"

// Receipt proves one answer: that the decision of the ledger at the position is the one with the digest, and that it
// follows from the requests of its account up to there. It reports what speaks against it, at that position, and returns
// the decision as it was made again. Account and Projection are not consulted.
func (audit Audit) Receipt(ctx context.Context, p events.Position, digest events.Digest) (events.Decision, Summary, error) {
	audit.Projection = ""
	recorded, request, missing, err := audit.pair(ctx, p)
	if err != nil {
		return events.Decision{}, Summary{}, err
	}
	if missing != "" {
		found, err := audit.gone(ctx, p)
		if err != nil {
			return events.Decision{}, Summary{}, err
		}
		audit.Report(Difference{Position: p, What: missing + " is missing", Expected: "digest " + digest.String(), Found: found})
		return events.Decision{}, Summary{Partitions: 1, Differences: 1, RowsSkipped: receiptRows}, nil
	}
	// A type that is not known is the walk's to report.
	asked, _ := events.DecodeRequest(request, p.Partition, audit.Ledger.Partitions)
	if asked.Account == "" {
		return audit.receiptOfNobody(&asked, recorded, digest)
	}
	audit.Account = asked.Account
	a, err := audit.begin(ctx)
	if err != nil {
		return events.Decision{}, Summary{}, err
	}
	a.sum.RowsSkipped = receiptRows
	err = a.end(a.proveReceipt(ctx, p, digest))
	return a.made, a.sum, err
}

// pair returns the decision at a position and its request, or says which of them is missing.
func (audit Audit) pair(ctx context.Context, p events.Position) (decision, request events.Message, missing string, err error) {
	for _, of := range []struct {
		stream events.Stream
		name   string
		into   *events.Message
	}{{events.Requests, "request", &request}, {events.Decisions, "decision", &decision}} {
		*of.into, err = audit.Ledger.Get(ctx, of.stream, p)
		if errors.Is(err, events.ErrNotFound) {
			return decision, request, of.name, nil
		}
		if err != nil {
			return decision, request, "", err
		}
	}
	return decision, request, "", nil
}

// gone says what is known of a number to which there is nothing any more. Whether it was erased only an audit of all tells.
func (audit Audit) gone(ctx context.Context, p events.Position) (string, error) {
	if p.Partition >= audit.Ledger.Partitions {
		return "none", nil
	}
	e, err := (&auditor{Audit: audit}).readErasures(ctx, p.Partition)
	if err != nil || e.last() < p.Sequence {
		return "none", err
	}
	return fmt.Sprintf("none: accounts were erased after it, the last at %s, and it may have gone with one", e.decisions[len(e.decisions)-1].Position), nil
}

// proveReceipt decides the account's requests again up to the position. What else differs on the way is not of this
// answer: it follows from requests, not from recorded decisions.
func (a *auditor) proveReceipt(ctx context.Context, p events.Position, digest events.Digest) error {
	report := a.Report
	a.Report = func(d Difference) {
		if d.Position == p || a.stopped[p.Partition] {
			report(d)
		} else {
			a.sum.Differences--
		}
	}
	if err := a.walk(ctx, p.Partition, p.Sequence, events.Heads{Requests: p.Sequence, Decisions: p.Sequence}); err != nil {
		return err
	}
	switch {
	case a.made.Position == p:
		a.compareReceipt(digest)
	case !a.stopped[p.Partition]:
		a.report(Difference{Position: p, Account: a.Account, What: "request is missing", Expected: "a request", Found: "none"})
	}
	return nil
}

// receiptOfNobody proves the decision on a request that names no account: it depends on no other.
func (audit Audit) receiptOfNobody(r *events.Request, recorded events.Message, digest events.Digest) (events.Decision, Summary, error) {
	a := &auditor{Audit: audit, sum: Summary{Partitions: 1, Requests: 1, Messages: 2, RowsSkipped: receiptRows}}
	a.made = capture.Decide(capture.NewState(), r)
	w := walk{auditor: a}
	w.compareMessage(&a.made, capture.MonthOf(&a.made, ""), recorded)
	a.compareReceipt(digest)
	return a.made, a.sum, nil
}

func (a *auditor) compareReceipt(digest events.Digest) {
	if a.made.Digest != digest {
		a.report(Difference{
			Position: a.made.Position, Account: a.made.Account, What: "receipt: digest",
			Expected: a.made.Digest.String(), Found: fmt.Sprint(digest),
		})
	}
}
