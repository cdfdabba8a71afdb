package replay

import (
	"context"
	"fmt"
	"sort"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// Partition is a partition as it was at one moment. What came later is not read, so that the pairs, the months that they
// belong to and what is left of erased accounts fit together, whatever is asked, decided or archived meanwhile.
type Partition struct {
	Number   int
	Heads    events.Heads
	Archives []Archive // in order
	Erasures []Erasure // in order

	source Source
}

// Archive is an archived month of a partition.
type Archive struct {
	events.MonthArchived
	Position events.Position // of the decision that archived it
	Link     events.Digest   // its digest: the link of the chain of months
	Asked    time.Time       // when the closing was asked for
}

// Erasure is the erasure of an account.
type Erasure struct {
	events.AccountErased
	Account  string
	Position events.Position // of the decision: what is of the account before it is void, but for earlier erasures
}

// Partition takes a partition as it is now. It reads the decisions on months and erasures and no other.
func (s Source) Partition(ctx context.Context, number int) (*Partition, error) {
	heads, err := s.Heads(ctx, number)
	if err != nil {
		return nil, err
	}
	p := &Partition{Number: number, Heads: heads, source: s}
	if p.Archives, err = s.archives(ctx, number, heads.Decisions); err != nil {
		return nil, err
	}
	p.Erasures, err = s.erasures(ctx, number, heads.Decisions)
	return p, err
}

func (s Source) archives(ctx context.Context, partition int, last uint64) (archives []Archive, err error) {
	err = s.each(ctx, partition, events.ArchivesSubject(partition), last, func(d *events.Decision) error {
		archived, ok := d.Body.(*events.MonthArchived)
		if !ok {
			return fmt.Errorf("decision %s stands under the subject of an archived month, and is none", d.Position)
		}
		archives = append(archives, Archive{MonthArchived: *archived, Position: d.Position, Link: d.Digest, Asked: d.Time})
		return nil
	})
	return archives, err
}

func (s Source) erasures(ctx context.Context, partition int, last uint64) (erasures []Erasure, err error) {
	err = s.each(ctx, partition, events.ErasuresSubject(partition), last, func(d *events.Decision) error {
		erased, ok := d.Body.(*events.AccountErased)
		if !ok {
			return fmt.Errorf("decision %s stands under the subject of an erasure, and is none", d.Position)
		}
		erasures = append(erasures, Erasure{AccountErased: *erased, Account: d.Account, Position: d.Position})
		return nil
	})
	return erasures, err
}

// each reads the decisions under a subject, up to a sequence.
func (s Source) each(ctx context.Context, partition int, subject string, last uint64, take func(*events.Decision) error) error {
	for batch, err := range s.ReadTo(ctx, events.Decisions, partition, []string{subject}, 0, last) {
		if err != nil {
			return err
		}
		for _, m := range batch {
			d, err := events.DecodeDecision(m, partition)
			if err != nil {
				return err
			}
			if err := take(&d); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

// FirstOpen returns the month after the last archived one, or nothing before any is archived.
func (p *Partition) FirstOpen() events.Month {
	if len(p.Archives) == 0 {
		return ""
	}
	return p.last().Month.Next()
}

func (p *Partition) last() *Archive { return &p.Archives[len(p.Archives)-1] }

// monthOf returns the month that a decision belongs to.
func (p *Partition) monthOf(d *events.Decision) events.Month {
	before := sort.Search(len(p.Archives), func(i int) bool { return p.Archives[i].Position.Sequence >= d.Position.Sequence })
	if before == 0 {
		return capture.MonthOf(d, "")
	}
	return capture.MonthOf(d, p.Archives[before-1].Month)
}

// isErased says whether what is of an account at a position was erased since.
func (p *Partition) isErased(account string, sequence uint64) bool {
	for i := len(p.Erasures) - 1; i >= 0 && p.Erasures[i].Position.Sequence > sequence; i-- {
		if p.Erasures[i].Account == account {
			return true
		}
	}
	return false
}

// First returns the first month of the partition: that of the first pair that is there, or the first that is archived. It
// is empty where nothing was asked yet.
func (p *Partition) First(ctx context.Context) (first events.Month, err error) {
	for pair, err := range p.Pairs(ctx, "", 0, p.Heads.Requests) {
		if err != nil {
			return "", err
		}
		if first = pair.Month; pair.Undecided() {
			first = p.OwnMonth(&pair)
		}
		break
	}
	if len(p.Archives) > 0 && (first == "" || p.Archives[0].Month < first) {
		first = p.Archives[0].Month
	}
	return first, nil
}
