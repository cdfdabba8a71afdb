package projections

import (
	"context"
	"fmt"
	"time"

	"jobtally/internal/events"
)

const (
	// closeGrace is how long after its end a month is closed. A request that was stamped in the month, and comes within it,
	// still counts there: it waited for its turn, or a clock is behind.
	closeGrace = 5 * time.Minute
	// closeEvery bounds how long the projector waits before it looks at the clock again, which may be set.
	closeEvery = time.Minute
)

// closeMonths asks for months to be archived while the projector decides, each once it is over and its grace passed, in
// order. Another projector may ask for the same one: whoever comes second is refused.
func (p *Projector) closeMonths(ctx context.Context) {
	for ctx.Err() == nil {
		month, due, err := p.nextToClose()
		wait := min(closeEvery, due)
		if err == nil && due <= 0 {
			wait, err = 0, p.closeMonth(ctx, month)
		}
		if err != nil && ctx.Err() == nil {
			p.log.Warn("a month could not be closed; trying again", "month", month, "error", err)
			wait = closeEvery
		}
		pause(ctx, wait)
	}
}

// nextToClose returns the month after the last that is archived, or the first that there is, and in how long it is to be
// closed: not soon, where nothing was ever asked.
func (p *Projector) nextToClose() (month events.Month, due time.Duration, err error) {
	if archived := p.db.Archived(p.partition); archived != "" {
		month = archived.Next()
	} else if month, err = p.db.firstMonth(p.partition); err != nil || month == "" {
		return month, closeEvery, err
	}
	return month, month.Next().Start().Add(closeGrace).Sub(p.ledger.Now()), nil
}

// overdue says whether a month should have been closed by the projector that decides, and was not: there may be none.
func (p *Projector) overdue() bool {
	_, due, err := p.nextToClose()
	return err == nil && due < -2*closeEvery
}

// closeMonth asks for a month to be archived, and waits until that is folded.
func (p *Projector) closeMonth(ctx context.Context, month events.Month) error {
	position, err := p.ledger.Append(ctx, &events.Request{
		ID: "month-close-" + string(month), Time: p.ledger.Now().UTC(), Body: &events.MonthCloseRequested{Month: month},
		Position: events.Position{Partition: p.partition},
	})
	if err != nil {
		return err
	}
	d, err := p.db.Await(ctx, position)
	if err != nil {
		return err
	}
	if refused, ok := d.Body.(*events.RequestRefused); ok {
		if p.db.Archived(p.partition) < month {
			return fmt.Errorf("refused at %s: %s", position, refused.Detail)
		}
		return nil // another projector was first
	}
	p.log.Info("month closed", "month", month, "position", position)
	if _, due, err := p.nextToClose(); err == nil && due <= 0 {
		p.log.Warn("the month after it is over as well: nothing ran for so long, or the clock is ahead; what is closed stays closed",
			"closed", month, "clock", p.ledger.Now().UTC())
	}
	return nil
}
