package archive

import (
	"context"
	"slices"

	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// writePart writes what one partition has of the month.
func (p *plan) writePart(ctx context.Context, of *planned, dir string) (part Part, err error) {
	part = Part{Partition: of.Number, Archived: Archived{Link: linkOf(&of.archive), Says: of.archive.MonthArchived}}
	if of.previous != nil {
		previous := linkOf(of.previous)
		part.Previous = &previous
	}
	erasures := erasuresOf(of.Erasures, p.Month)
	if part.Erasures, err = p.writeErasures(ctx, of, erasures, dir); err != nil {
		return part, err
	}
	entered := links{}
	c := p.census(of, erasures, nil, entered)
	if err := p.writePairs(ctx, of, c, &part, dir); err != nil {
		return part, err
	}
	return part, p.writeAccounts(ctx, of, c, entered, erasures, &part, dir)
}

func linkOf(a *replay.Archive) Link {
	return Link{Month: a.Month, Position: a.Position, Digest: a.Link}
}

// erasuresOf returns the erasures of accounts that have something of the month.
func erasuresOf(all []replay.Erasure, month events.Month) (of []replay.Erasure) {
	for _, e := range all {
		if slices.ContainsFunc(e.Months, func(m events.ErasedMonth) bool { return m.Month == month }) {
			of = append(of, e)
		}
	}
	return of
}

// census begins to add up accounts, those with names after one. It notes which links are to be found.
func (p *plan) census(of *planned, erasures []replay.Erasure, after *string, entered links) *census {
	c := newCensus(p.Month, of.Number, after)
	c.enter = func(d *events.Decision) events.Digest { entered.want(d); return events.Digest{} }
	for i := range erasures {
		c.erasure(&erasures[i])
	}
	return c
}

// writeErasures writes the erasures that took something of the month, whichever month they are of themselves.
func (p *plan) writeErasures(ctx context.Context, of *planned, erasures []replay.Erasure, dir string) (File, error) {
	w, err := create(dir, erasuresName(of.Number))
	if err != nil {
		return File{}, err
	}
	for _, e := range erasures {
		at := e.Position.Sequence
		for pair, err := range of.Pairs(ctx, e.Account, at-1, at) {
			if err != nil {
				w.err = err
				break
			}
			w.pair(&pair)
		}
	}
	return w.close()
}

// pair writes a request and the decision on it.
func (w *writer) pair(p *replay.Pair) {
	w.buffer = p.Asked.AppendStructured(w.buffer[:0], p.Position.Partition)
	w.line(w.buffer)
	w.buffer = p.Decided.AppendStructured(w.buffer[:0], p.Position.Partition)
	w.line(w.buffer)
}

// writePairs writes the pairs of the month as they come, and counts them.
func (p *plan) writePairs(ctx context.Context, of *planned, c *census, part *Part, dir string) error {
	after, last, err := of.Month(ctx, p.Month)
	if err != nil {
		return err
	}
	w, err := create(dir, pairsName(of.Number))
	if err != nil {
		return err
	}
	for pair, err := range of.Pairs(ctx, "", after, last) {
		if err != nil {
			w.err = err
			break
		}
		if pair.Month != p.Month {
			continue
		}
		w.pair(&pair)
		if part.Requests == 0 {
			part.First = pair.Position
		}
		part.Last = pair.Position
		part.Requests, part.Decisions = part.Requests+1, part.Decisions+1
		if pair.Position != of.archive.Position {
			c.add(&pair.Decision)
			c.trim(p.most)
		}
		p.done++
		p.Progress(min(p.done, p.all), 2*p.all)
	}
	part.Pairs, err = w.close()
	return err
}

// writeAccounts writes the accounts in the order of their names. Where there are too many for one census, the pairs that
// were just written are read again for those after it.
func (p *plan) writeAccounts(ctx context.Context, of *planned, c *census, entered links, erasures []replay.Erasure, part *Part, dir string) error {
	w, err := create(dir, accountsName(of.Number))
	if err != nil {
		return err
	}
	total := &sum{}
	for {
		if err := c.fillIn(ctx, p.Source, entered); err != nil {
			w.err = err
			break
		}
		for a := range c.lines() {
			w.line(a.line())
		}
		total.add(c)
		if c.upTo == nil {
			break
		}
		entered = links{}
		c = p.census(of, erasures, c.upTo, entered)
		if w.err = p.readAgain(ctx, of, c, dir); w.err != nil {
			break
		}
	}
	part.Erased = total.left.Requests
	part.Accounts, err = w.close()
	return err
}

// fillIn finds the links that are to be found of the accounts that there are.
func (c *census) fillIn(ctx context.Context, s replay.Source, entered links) error {
	for name := range entered {
		if c.accounts[name] == nil {
			delete(entered, name)
		}
	}
	if err := entered.find(ctx, s, c.partition); err != nil {
		return err
	}
	for name, found := range entered {
		for i, e := range c.accounts[name].entries {
			if digest, ok := found[e.Position.Sequence]; ok {
				c.accounts[name].entries[i].Previous = digest
			}
		}
	}
	return nil
}

// readAgain adds up the decisions that were written.
func (p *plan) readAgain(ctx context.Context, of *planned, c *census, dir string) error {
	f, err := open(dir, pairsName(of.Number))
	if err != nil {
		return err
	}
	for line, err := range f.lines(ctx) {
		if err != nil {
			return err
		}
		if err := c.addLine(line, f.at, of.archive.Position); err != nil {
			return err
		}
		c.trim(p.most)
	}
	return nil
}

// addLine takes in a line of a file of pairs, if it is a decision, and not the one that archived the month.
func (c *census) addLine(line []byte, at int64, archived events.Position) error {
	if at%2 == 1 {
		return nil // a request
	}
	m, _, err := events.ParseStructured(line)
	if err != nil {
		return err
	}
	d, err := events.DecodeDecision(m, c.partition)
	if err != nil {
		return err
	}
	if d.Position != archived {
		c.add(&d)
	}
	return nil
}
