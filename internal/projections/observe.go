package projections

import (
	"time"

	"jobtally/internal/events"
)

// Observer is told what a projector does. Functions that are nil are not called. Those of the projectors of several
// partitions are called concurrently, and hold up the stage that calls them: they are quick, and keep nothing.
type Observer struct {
	// Decided is told of requests that were decided together, and when that began.
	Decided func(requests []events.Request, began time.Time)
	// Recorded is told of decisions that are in the ledger now, made here.
	Recorded func(decisions []events.Decision)
	// Folded is told of decisions that are in the file now, made here or not, and when folding them began.
	Folded func(decisions []events.Decision, began time.Time)
	// Fenced is told that another projector had a position before this one.
	Fenced func()
}

// Observe has an observer told of what the projector does. It is for before Run.
func (p *Projector) Observe(o Observer) { p.observer = o }

func (p *Projector) tellDecided(requests []events.Request, began time.Time) {
	if p.observer.Decided != nil {
		p.observer.Decided(requests, began)
	}
}

func (p *Projector) tellRecorded(decisions []events.Decision) {
	if p.observer.Recorded != nil {
		p.observer.Recorded(decisions)
	}
}

func (p *Projector) tellFolded(decisions []events.Decision, began time.Time) {
	if p.observer.Folded != nil && len(decisions) > 0 {
		p.observer.Folded(decisions, began)
	}
}

func (p *Projector) tellFenced() {
	if p.observer.Fenced != nil {
		p.observer.Fenced()
	}
}
