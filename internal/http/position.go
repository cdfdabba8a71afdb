package http

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/events"
)

const headerLedgerPosition = "Ledger-Position"

// maxPositionWait is how long a call waits for the position that its Ledger-Position header asks for.
const maxPositionWait = 10 * time.Second

// tellPosition sets the Ledger-Position of the answer to what this node has folded of the account's partition. It
// is called before the answer is read, so that the answer shows at least that position.
func (a *api) tellPosition(c echo.Context) {
	k := callOf(c)
	if sequence := a.backend.Folded(k.partition); sequence > 0 {
		p := events.Position{Partition: k.partition, Sequence: sequence}
		c.Response().Header().Set(headerLedgerPosition, p.String())
	}
}

// reachPosition waits until this node has folded the position that the call asks for, if it asks for one.
func (a *api) reachPosition(c echo.Context) error {
	k := callOf(c)
	asked, given := c.Request().Header[headerLedgerPosition]
	if !given {
		return nil
	}
	if len(asked) > 1 {
		return newProblem(codeInvalidPosition, "there is more than one Ledger-Position header")
	}
	position, err := events.ParsePosition(asked[0])
	if err != nil {
		return newProblem(codeInvalidPosition, "Ledger-Position looks like 0-1234, <partition>-<sequence>")
	}
	if position.Partition != k.partition {
		return newProblem(codeInvalidPosition, fmt.Sprintf("everything of the account is in partition %d", k.partition))
	}
	if position.Sequence <= a.backend.Folded(k.partition) {
		return nil
	}
	ctx, cancel := context.WithTimeout(c.Request().Context(), maxPositionWait)
	defer cancel()
	if _, err := a.backend.Await(ctx, position); errors.Is(err, context.DeadlineExceeded) {
		return newProblem(codePositionNotReached, "")
	} else if err != nil {
		return fmt.Errorf("await position %s: %w", position, err)
	}
	a.tellPosition(c)
	return nil
}
