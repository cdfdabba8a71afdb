package http

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	nethttp "net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// A replay reads the ledger while a client waits. These bound what that costs everybody else.
const (
	maxReplays    = 2       // at once on this node
	maxReplayed   = 100_000 // requests in the month
	replayTimeout = 20 * time.Second
)

// ledgerForm says what the ledger has of a month, read up to the position that the projection had folded.
type ledgerForm struct {
	Matches      bool            `json:"matches"`
	First        events.Position `json:"first"` // of the stretch that was read
	Last         events.Position `json:"last"`
	MessagesRead int64           `json:"messages_read"`
	Differences  []difference    `json:"differences"`
	Broken       string          `json:"broken,omitempty"` // how the ledger itself is not whole
}

// difference is a value that the projection and the ledger do not agree on; null where there is none.
type difference struct {
	Field      string `json:"field"`
	Projection any    `json:"projection"`
	Ledger     any    `json:"ledger"`
}

// replayMonth answers with a month of the projection and whether the ledger has the same. It is refused rather than queued.
func (a *api) replayMonth(c echo.Context, month events.Month) error {
	select {
	case a.replays <- struct{}{}:
		defer func() { <-a.replays }()
	default:
		return newProblem(codeReplayUnavailable, fmt.Sprintf("%d months are being replayed already; try again later", maxReplays))
	}
	m, err := a.month(c, month)
	if err != nil {
		return err
	}
	if m.Requests > maxReplayed {
		return newProblem(codeMonthTooLarge, fmt.Sprintf("the month has %d requests, and one of more than %d is not replayed while a client waits; ask the operator for `projector replay`",
			m.Requests, maxReplayed))
	}
	replayed, err := a.replay(c, &m)
	if err != nil {
		return err
	}
	details := detailsOf(&m, a.currentMonth(callOf(c)))
	details.Ledger = formOfReplay(&m.MonthCount, &replayed)
	if !details.Ledger.Matches {
		a.logMismatch(c, month, details.Ledger)
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return writeJSON(c, nethttp.StatusOK, details)
}

// replay reads the month from the ledger. It ends with the client's patience, or with ours.
func (a *api) replay(c echo.Context, m *capture.AccountMonth) (capture.ReplayedMonth, error) {
	ctx, cancel := context.WithTimeout(c.Request().Context(), replayTimeout)
	defer cancel()
	replayed, err := a.backend.Replay(ctx, callOf(c).account, m)
	switch {
	case err == nil:
		return replayed, nil
	case c.Request().Context().Err() != nil:
		return replayed, context.Canceled // whatever the reader made of it
	case ctx.Err() != nil:
		return replayed, newProblem(codeReplayUnavailable, fmt.Sprintf("the ledger was not read in %d seconds; try again later", seconds(replayTimeout)))
	case errors.Is(err, capture.ErrMonthTooLarge):
		return replayed, newProblem(codeMonthTooLarge, "the ledger has more of the account in that time than is replayed while a client waits; ask the operator for `projector replay`")
	case errors.Is(err, events.ErrUnavailable):
		return replayed, newProblem(codeReplayUnavailable, "the ledger cannot be read right now; try again later")
	case errors.Is(err, events.ErrNotFound):
		return replayed, newProblem(codeAccountUnknown, "") // erased meanwhile
	}
	return replayed, fmt.Errorf("replay %s: %w", m.Month, err)
}

// logMismatch tells the operator what the client is told: the projection is not to be trusted.
func (a *api) logMismatch(c echo.Context, month events.Month, form *ledgerForm) {
	fields := make([]string, len(form.Differences))
	for i, d := range form.Differences {
		fields[i] = d.Field
	}
	k := callOf(c)
	a.log.LogAttrs(c.Request().Context(), slog.LevelError, "a month of the projection does not match the ledger: run projector audit",
		slog.String("account", k.account), slog.String("month", string(month)), slog.Any("differences", fields),
		slog.String("broken", form.Broken), slog.String("request_id", k.id))
}

func formOfReplay(projection *capture.MonthCount, ledger *capture.ReplayedMonth) *ledgerForm {
	form := &ledgerForm{
		First: ledger.First, Last: ledger.Last, MessagesRead: ledger.Messages,
		Differences: differences(projection, &ledger.MonthCount),
	}
	if ledger.Broken != nil {
		form.Broken = ledger.Broken.Error()
	}
	form.Matches = len(form.Differences) == 0 && ledger.Broken == nil
	return form
}

// differences compares everything that is counted of a month. The limit is not among it: that of a month may have been
// set years before.
func differences(projection, ledger *capture.MonthCount) []difference {
	found := comparison{}
	found.counts("requests", projection.Requests, ledger.Requests)
	found.counts("captured", projection.Captured, ledger.Captured)
	found.counts("duplicated", projection.Duplicated, ledger.Duplicated)
	found.counts("rejected", projection.Rejected, ledger.Rejected)
	found.counts("repeated", projection.Repeated, ledger.Repeated)
	found.counts("captured_via.extension", projection.Extension, ledger.Extension)
	found.texts("first", written(projection.First), written(ledger.First))
	found.texts("last", written(projection.Last), written(ledger.Last))
	if projection.Digest != ledger.Digest {
		found.texts("digest", projection.Digest.String(), ledger.Digest.String())
	}
	found.days(projection.Days, ledger.Days)
	return found
}

type comparison []difference

func (c *comparison) counts(field string, projection, ledger int64) {
	if projection != ledger {
		*c = append(*c, difference{field, projection, ledger})
	}
}

func (c *comparison) texts(field, projection, ledger string) {
	if projection != ledger {
		*c = append(*c, difference{field, orNull(projection), orNull(ledger)})
	}
}

// days compares the days that either has. One that is not there has no captures.
func (c *comparison) days(projection, ledger []capture.DayCount) {
	type pair struct{ projection, ledger capture.DayCount }
	days := map[string]*pair{}
	var names []string
	at := func(day string) *pair {
		if days[day] == nil {
			days[day] = &pair{}
			names = append(names, day)
		}
		return days[day]
	}
	for _, d := range projection {
		at(d.Day).projection = d
	}
	for _, d := range ledger {
		at(d.Day).ledger = d
	}
	slices.Sort(names)
	for _, name := range names {
		d := days[name]
		c.counts("days."+name+".captured", d.projection.Captured, d.ledger.Captured)
		c.counts("days."+name+".duplicated", d.projection.Duplicated, d.ledger.Duplicated)
		c.counts("days."+name+".rejected", d.projection.Rejected, d.ledger.Rejected)
	}
}

// written is a position, or nothing for that of a month without requests.
func written(p events.Position) string {
	if p.Sequence == 0 {
		return ""
	}
	return p.String()
}

func orNull(text string) any {
	if text == "" {
		return nil
	}
	return text
}
