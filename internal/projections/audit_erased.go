package projections

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"jobtally/internal/events"
)

// erasures are those of a partition, and what of them was met. An erased account cannot be decided again. What its
// erasure says of it is taken as it stands: its totals go into the months from the start, so that these can be.
type erasures struct {
	decisions []events.Decision // of AccountErased, in order
	requests  uint64            // that they removed, in all
	met       uint64            // numbers of removed requests, so far
}

func (e *erasures) last() uint64 {
	if len(e.decisions) == 0 {
		return 0
	}
	return e.decisions[len(e.decisions)-1].Position.Sequence
}

// at returns the erasure at a sequence, or nil.
func (e *erasures) at(sequence uint64) *events.Decision {
	i, found := slices.BinarySearchFunc(e.decisions, sequence, func(d events.Decision, sequence uint64) int {
		return int(d.Position.Sequence) - int(sequence)
	})
	if !found {
		return nil
	}
	return &e.decisions[i]
}

// erases says whether a later erasure took a message of an account.
func (e *erasures) erases(account string, m *events.Message) bool {
	return account != "" && !m.Remains() && slices.ContainsFunc(e.decisions, func(d events.Decision) bool {
		return d.Account == account && d.Position.Sequence > m.Sequence
	})
}

// explains says whether a number without a request may be that of an erased one, and counts it.
func (e *erasures) explains(sequence uint64) bool {
	if sequence > e.last() || e.met >= e.requests {
		return false
	}
	e.met++
	return true
}

var errErasedMeanwhile = errors.New("an account was erased while the ledger was audited: audit again")

// foretell reads the erasures of the partitions, and puts the totals of what they removed into the scratch projection.
func (a *auditor) foretell(ctx context.Context) error {
	a.scratch.foretold = map[events.Position]bool{}
	for _, p := range a.partitions {
		e, err := a.readErasures(ctx, p)
		if err != nil {
			return err
		}
		a.erasures[p] = e
		for i := range e.decisions {
			d := &e.decisions[i]
			if err := a.scratch.restoreTotals(d, d.Body.(*events.AccountErased)); err != nil {
				return err
			}
			a.scratch.foretold[d.Position] = true
		}
	}
	return nil
}

func (a *auditor) readErasures(ctx context.Context, p int) (*erasures, error) {
	e := &erasures{}
	heads, err := a.Ledger.Heads(ctx, p)
	if err != nil {
		return e, err
	}
	for batch, err := range a.Ledger.ReadTo(ctx, events.Decisions, p, []string{events.ErasuresSubject(p)}, 0, heads.Decisions) {
		if err != nil {
			return e, err
		}
		for _, m := range batch {
			d, err := events.DecodeDecision(m, p)
			if erased, ok := d.Body.(*events.AccountErased); ok && err == nil {
				e.decisions = append(e.decisions, d)
				e.requests += uint64(erased.Requests)
			}
			// Anything else there is found when its number is compared.
		}
	}
	return e, nil
}

// compareErasures compares the number of requests that erasures removed with the numbers that are missing. Of one account
// there is nothing to compare: which numbers were its own nobody knows any more.
func (a *auditor) compareErasures(ctx context.Context, p int) error {
	before := a.erasures[p]
	now, err := a.readErasures(ctx, p)
	if err != nil {
		return err
	}
	if len(now.decisions) != len(before.decisions) {
		return errErasedMeanwhile
	}
	if a.Account == "" && !a.stopped[p] && before.met != before.requests {
		a.report(Difference{
			Position: events.Position{Partition: p, Sequence: before.last()}, What: "requests removed by erasures",
			Expected: fmt.Sprint(before.requests), Found: fmt.Sprint(before.met),
		})
	}
	return nil
}

// erased takes the recorded decision on a request to erase an account, which cannot be made again, and compares what
// follows from the request. Without one it returns nil.
func (w *walk) erased(r *events.Request) *events.Decision {
	recorded := w.erasures[w.partition].at(r.Position.Sequence)
	if recorded == nil {
		return nil
	}
	d := *recorded
	body := d.Body.(*events.AccountErased)
	total := int64(0)
	for _, month := range body.Months {
		total += month.Requests
	}
	if total != body.Requests {
		w.report(Difference{
			Position: d.Position, Account: d.Account, What: "requests of an erasure",
			Expected: fmt.Sprint(total), Found: fmt.Sprint(body.Requests),
		})
	}
	d.Account, d.RequestID, d.Time, d.RequestDigest = r.Account, r.ID, r.Time, r.Digest
	d.Seal(events.Digest{})
	return &d
}

// archived takes the recorded decision on the closing of a month, linked to the one before it. Without one, or where it
// was refused, it is a void: nothing of the account depends on it.
func (w *walk) archived(r *events.Request) (*events.Decision, error) {
	void := w.void(r.Position.Sequence)
	d := &events.Decision{Position: void.Position, Body: &events.Erased{}}
	m, err := w.recordedAt(r.Position.Sequence)
	if m == nil || err != nil {
		return d, err
	}
	recorded, err := events.DecodeDecision(*m, w.partition)
	body, ok := recorded.Body.(*events.MonthArchived)
	if err != nil || !ok {
		w.recorded.take()
		return d, nil
	}
	*d = events.Decision{Position: r.Position, RequestID: r.ID, Time: r.Time, RequestDigest: r.Digest, Body: body}
	d.Seal(w.archive[w.partition])
	w.archive[w.partition] = d.Digest
	return d, nil
}
