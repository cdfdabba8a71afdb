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
		month, err := p.nextToClose()
		wait := closeEvery
		if err == nil && month != "" {
			wait = min(closeEvery, month.Next().Start().Add(closeGrace).Sub(p.ledger.Now()))
		}
		if wait <= 0 {
			wait, err = 0, p.closeMonth(ctx, month)
		}
		if err != nil && ctx.Err() == nil {
			p.log.Warn("a month could not be closed; trying again", "month", month, "error", err)
			wait = closeEvery
		}
		pause(ctx, wait)
	}
}

// nextToClose returns the month after the last that is archived, or the first that there is. It is empty where nothing
// was ever asked.
func (p *Projector) nextToClose() (events.Month, error) {
	if archived := p.db.Archived(p.partition); archived != "" {
		return archived.Next(), nil
	}
	return p.db.firstMonth(p.partition)
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
	if refused, ok := d.Body.(*events.RequestRefused); ok && p.db.Archived(p.partition) < month {
		return fmt.Errorf("refused at %s: %s", position, refused.Detail)
	}
	p.log.Info("month closed", "month", month, "position", position)
	return nil
}
