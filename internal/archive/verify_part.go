package archive

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/replay"
)

// partVerifier verifies what a partition has of the month.
type partVerifier struct {
	*verifier
	part     *Part
	erasures []replay.Erasure
	found    Part // what is counted
	total    *sum
	archived bool // the decision that archived the month was met
	whole    bool // the pairs could be read to the end

	asked *events.Request // the decision on which is due
	name  string          // of the file that is read
	at    int64           // the line in it
}

func newPartVerifier(v *verifier, part *Part) *partVerifier {
	p := &partVerifier{verifier: v, part: part, total: &sum{}}
	p.startCount()
	return p
}

func (p *partVerifier) startCount() {
	none := events.Position{Partition: p.part.Partition}
	p.found = Part{Partition: p.part.Partition, First: none, Last: none}
}

func (p *partVerifier) run(ctx context.Context) error {
	if previous := p.part.Previous; previous != nil && previous.Month.Next() != p.manifest.Month {
		p.report(Difference{File: manifestName, Position: previous.Position, What: "the month before", Found: string(previous.Month)})
	}
	p.name = p.part.Erasures.Name
	if err := p.readErasures(ctx); err != nil {
		return err
	}
	accounts := p.readAccounts(ctx)
	defer accounts.stop()
	for first := true; ; first = false {
		recorded, err := accounts.chunk(p.most)
		if err != nil {
			return err
		}
		c := p.census(recorded)
		if first {
			err = p.readPairs(ctx, c)
		} else {
			err = p.readPairsAgain(ctx, c)
		}
		if err != nil {
			return err
		}
		if p.whole {
			p.compareAccounts(c, recorded.lines)
		}
		p.total.add(c)
		if recorded.upTo == nil {
			break
		}
	}
	p.sum.Accounts += accounts.lines
	if p.whole {
		p.compare()
	}
	return nil
}

// census begins to add up the accounts that are recorded, which say where their chains come in.
func (p *partVerifier) census(recorded chunk) *census {
	c := newCensus(p.manifest.Month, p.part.Partition, recorded.after)
	c.upTo = recorded.upTo
	c.enter = func(d *events.Decision) events.Digest {
		previous, known := recorded.entries[d.Account][d.Position.Sequence]
		if err := d.Verify(previous); !known || err != nil {
			p.differ(d.Position, d.Account, "the decision does not follow from the one before it")
		}
		return previous
	}
	for i := range p.erasures {
		c.erasure(&p.erasures[i])
	}
	return c
}

// readErasures verifies the erasures one after another, and takes them in.
func (p *partVerifier) readErasures(ctx context.Context) error {
	p.name = p.part.Erasures.Name
	_, err := p.read(ctx, p.part.Erasures, func(at int64, line []byte) bool {
		if d := p.decision(at, line); d != nil {
			p.addErasure(d)
		}
		return true
	})
	p.endOfPairs()
	p.startCount()
	return err
}

// readPairs verifies the pairs one after another, and adds them up.
func (p *partVerifier) readPairs(ctx context.Context, c *census) error {
	p.name = p.part.Pairs.Name
	whole, err := p.read(ctx, p.part.Pairs, func(at int64, line []byte) bool {
		d := p.decision(at, line)
		if d == nil {
			return true
		}
		p.verifyMonth(d)
		if _, archives := d.Body.(*events.MonthArchived); archives {
			p.verifyArchived(d)
		} else {
			p.total.here.Add(d)
			p.add(c, d)
		}
		p.sum.Pairs++
		p.Progress(p.sum.Pairs, p.all)
		return true
	})
	if p.whole = whole; whole {
		p.endOfPairs()
	}
	return err
}

// add adds a decision up. One of no account follows from nothing.
func (p *partVerifier) add(c *census, d *events.Decision) {
	if d.Account == "" && d.Verify(events.Digest{}) != nil {
		p.differ(d.Position, "", "the decision is not as it was made: its digest differs")
	}
	c.add(d)
}

// readPairsAgain adds up accounts of pairs that were verified.
func (p *partVerifier) readPairsAgain(ctx context.Context, c *census) error {
	f, err := open(p.dir, p.part.Pairs.Name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errIrregular) {
		return nil // it was reported
	}
	if err != nil {
		return err
	}
	for line, err := range f.lines(ctx) {
		if errors.Is(err, errDamaged) {
			return nil
		}
		if err != nil {
			return err
		}
		p.at = f.at
		// What cannot be read was reported.
		_ = c.addLine(line, f.at, p.part.Archived.Position)
	}
	return nil
}

func (p *partVerifier) differ(position events.Position, account, what string) {
	p.report(Difference{File: p.name, Line: p.at, Position: position, Account: account, What: what})
}

// decision verifies a line, and returns the decision if it is one that can be read.
func (p *partVerifier) decision(at int64, line []byte) *events.Decision {
	p.at = at
	m, partition, err := events.ParseStructured(line)
	position := events.Position{Partition: partition, Sequence: m.Sequence}
	if err != nil {
		p.differ(events.Position{}, "", err.Error())
		return nil
	}
	if partition != p.part.Partition {
		p.differ(position, "", "it is of another partition")
		return nil
	}
	if strings.HasPrefix(m.Subject, "requests.") {
		p.request(m, position)
		return nil
	}
	return p.decided(m, position)
}

func (p *partVerifier) request(m events.Message, position events.Position) {
	if p.asked != nil {
		p.differ(p.asked.Position, p.asked.Account, "the request before this line has no decision")
	}
	if m.Sequence <= p.found.Last.Sequence {
		p.differ(position, "", "it comes after "+p.found.Last.String())
	}
	// Of a type that is not known there is the digest, which is all that is needed.
	r, _ := events.DecodeRequest(m, p.part.Partition, p.manifest.Partitions)
	p.asked = &r
	p.found.Requests++
	if p.found.Last = position; p.found.First.Sequence == 0 {
		p.found.First = position
	}
}

func (p *partVerifier) decided(m events.Message, position events.Position) *events.Decision {
	p.found.Decisions++
	d, err := events.DecodeDecision(m, p.part.Partition)
	asked := p.asked
	p.asked = nil
	switch {
	case err != nil:
		p.differ(position, "", err.Error())
		return nil
	case asked == nil || asked.Position != position:
		p.differ(position, d.Account, "the decision has no request before it")
	case asked.Digest != d.RequestDigest:
		p.differ(position, d.Account, "the decision is not on this request: its request digest differs")
	}
	if d.Account != "" && events.PartitionOf(d.Account, p.manifest.Partitions) != p.part.Partition {
		p.differ(position, d.Account, "the account is of another partition")
	}
	if again := d.Message(); again.Subject != m.Subject || !maps.EqualFunc(again.Header, m.Header, slices.Equal) {
		p.differ(position, d.Account, "the decision has other attributes than it is written with")
	}
	return &d
}

func (p *partVerifier) endOfPairs() {
	if p.asked != nil {
		p.differ(p.asked.Position, p.asked.Account, "the last request has no decision")
		p.asked = nil
	}
}

// verifyMonth verifies that a decision belongs to the month: after the decision that archived the month before, what is
// of earlier months does too; before it, only what is of the month itself.
func (p *partVerifier) verifyMonth(d *events.Decision) {
	archived := events.Month("")
	if previous := p.part.Previous; previous != nil && d.Position.Sequence > previous.Position.Sequence {
		archived = previous.Month
	}
	if month := capture.MonthOf(d, archived); month != p.manifest.Month {
		p.report(Difference{
			File: p.name, Line: p.at, Position: d.Position, Account: d.Account,
			What: "month", Expected: string(p.manifest.Month), Found: string(month),
		})
	}
}

// verifyArchived verifies the decision that archived the month: the last, and a link of the chain of months.
func (p *partVerifier) verifyArchived(d *events.Decision) {
	previous := events.Digest{}
	if p.part.Previous != nil {
		previous = p.part.Previous.Digest
	}
	if d.Verify(previous) != nil {
		p.differ(d.Position, "", "the month does not follow from the one archived before it")
	}
	if p.archived {
		p.differ(d.Position, "", "the month is archived twice")
	}
	p.archived = true
	about := Difference{File: manifestName, Position: d.Position, What: "archived: position"}
	p.differs(about, d.Position, p.part.Archived.Position)
	about.What = "archived: digest"
	p.differs(about, d.Digest, p.part.Archived.Digest)
	about.What = "archived: month"
	p.differs(about, p.manifest.Month, p.part.Archived.Month)
	about.What = "archived: what it says"
	p.differs(about, *d.Body.(*events.MonthArchived), p.part.Archived.Says)
}

// addErasure takes in what an erasure left of the month.
func (p *partVerifier) addErasure(d *events.Decision) {
	erased, ok := d.Body.(*events.AccountErased)
	if !ok || len(erasuresOf([]replay.Erasure{{AccountErased: *erased}}, p.manifest.Month)) == 0 {
		p.differ(d.Position, d.Account, "it is no erasure of anything of the month")
		return
	}
	if d.Verify(events.Digest{}) != nil {
		p.differ(d.Position, d.Account, "the erasure is not as it was decided: its digest differs")
	}
	p.erasures = append(p.erasures, replay.Erasure{AccountErased: *erased, Account: d.Account, Position: d.Position})
}

// compare compares what was counted with what the manifest says, and what adds up with what archived the month.
func (p *partVerifier) compare() {
	if !p.archived {
		p.report(Difference{File: p.part.Pairs.Name, Position: p.part.Archived.Position, What: "the decision that archived the month is missing"})
	}
	about := Difference{File: manifestName}
	for _, c := range []struct {
		what            string
		expected, found any
	}{
		{"requests", p.found.Requests, p.part.Requests}, {"decisions", p.found.Decisions, p.part.Decisions},
		{"erased", p.total.left.Requests, p.part.Erased}, {"first", p.found.First, p.part.First}, {"last", p.found.Last, p.part.Last},
		{"last", p.part.Archived.Position, p.part.Last},
	} {
		about.What = p.part.Pairs.Name + ": " + c.what
		p.differs(about, c.expected, c.found)
	}
	p.sum.Erased += p.total.left.Requests
	says, adds := p.part.Archived.Says, p.total.archived(p.manifest.Month)
	about = Difference{File: p.part.Pairs.Name, Position: p.part.Archived.Position}
	for _, c := range []struct {
		what       string
		said, adds any
	}{
		{"requests", says.Requests, adds.Requests}, {"captured", says.Captured, adds.Captured},
		{"duplicated", says.Duplicated, adds.Duplicated}, {"rejected", says.Rejected, adds.Rejected},
		{"repeated", says.Repeated, adds.Repeated}, {"first", says.First, adds.First}, {"last", says.Last, adds.Last},
		{"accounts", says.Accounts, adds.Accounts}, {"digest", says.Digest, adds.Digest},
	} {
		about.What = "the pairs do not add up to what archived the month: " + c.what
		p.differs(about, c.said, c.adds)
	}
}
