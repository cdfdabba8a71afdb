package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

const (
	// deleteSubject is where a server is asked to delete a message. The client library has a call for it, which says of
	// a refusal only the text.
	deleteSubject = "$JS.API.STREAM.MSG.DELETE."

	writePoll = 5 * time.Millisecond
	// deleteTries is how often a server is asked to delete a message before it counts as one that does not answer.
	deleteTries = 4

	codeSequenceNotFound jetstream.ErrorCode = 10043 // of a message that is deleted already
)

// Erase removes what an account has before its erasure, the decision under the number given: its decisions and then its
// requests, but for those of earlier erasures. Nothing of them is left in the files of the server, of which each is
// written anew without it; the numbers are never given again. It tells its progress after each message, and returns how
// many it removed.
//
// It can be called again, and by two processes at once: what was cut short, it finishes.
func (l *Ledger) Erase(ctx context.Context, account string, before uint64, progress func(removed, total int)) (removed int, err error) {
	e := erasing{l: l, account: account, position: events.Position{
		Partition: events.PartitionOf(account, l.Partitions), Sequence: before,
	}}
	if err := e.check(ctx); err != nil {
		return 0, err
	}
	forgotten := l.forgetConsumers(ctx, account, e.position) // first: who waits for the messages to be gone finds these gone, too
	finish, err := e.begin(ctx)
	if err != nil {
		return 0, errors.Join(err, forgotten)
	}
	removed, err = e.remove(ctx, progress)
	return removed, errors.Join(err, finish(), forgotten)
}

// erasing is an Erase under way.
type erasing struct {
	l        *Ledger
	account  string
	position events.Position // of the erasure
}

// check returns why nothing may be removed, or not all of it, or nil.
func (e *erasing) check(ctx context.Context) error {
	if e.l.embedded == nil && IsEmbedded(e.l.nc) {
		return errors.New("what an account has in the ledger of a running service is removed by that service: nobody else can make sure that nothing of it is left on its disk")
	}
	m, err := e.l.Get(ctx, events.Decisions, e.position)
	if err != nil {
		return fmt.Errorf("the erasure of account %s, %s: %w", e.account, e.position, err)
	}
	if m.Subject != events.ErasedSubject(e.account, e.position.Partition) {
		return fmt.Errorf("decision %s does not erase account %s: nothing is removed", e.position, e.account)
	}
	for _, stream := range erasedFrom {
		name := stream.Name(e.position.Partition)
		info, err := e.l.streams[name].Info(ctx)
		if err != nil {
			return fmt.Errorf("%w: settings of %s: %w", events.ErrUnavailable, name, err)
		}
		if info.Config.DenyDelete {
			return fmt.Errorf("stream %s has deny_delete set, which the NATS server never takes back, so nothing can be erased from it; create the stream anew without it, and restore it from a backup", name)
		}
	}
	return nil
}

// erasedFrom is the order in which the streams lose the messages of an account: a decision can be made again as long as
// its request is there.
var erasedFrom = []events.Stream{events.Decisions, events.Requests}

// begin returns once the erasure is as durable as can be seen to, and everything before it: its requests gone, the
// decisions of an account could not be made again. finish returns once what was removed does not come back.
func (e *erasing) begin(ctx context.Context) (finish func() error, err error) {
	if e.l.embedded == nil {
		return func() error { return nil }, nil
	}
	server, p := e.l.embedded, e.position.Partition
	requests := e.l.appenders[p].syncer
	if requests == nil {
		requests = newSyncer(server.blocks(events.Requests.Name(p)))
	}
	decisions := newSyncer(server.blocks(events.Decisions.Name(p)))
	if err := markErasing(server.options.StoreDir); err != nil {
		return nil, fmt.Errorf("%w: %w", events.ErrUnavailable, err)
	}
	if err := awaitMessage(ctx, decisions.dir, e.position.Sequence); err != nil {
		return nil, err
	}
	if err := errors.Join(requests.beginErasing(), decisions.beginErasing()); err != nil {
		return nil, errors.Join(err, requests.endErasing(), decisions.endErasing())
	}
	return func() error { return errors.Join(requests.endErasing(), decisions.endErasing()) }, nil
}

// awaitMessage waits until the server has written a message to its file, which it does with a decision some milliseconds
// after it acknowledged it.
func awaitMessage(ctx context.Context, dir string, sequence uint64) error {
	ctx, cancel := context.WithTimeout(ctx, deleteTries*ackTimeout)
	defer cancel()
	for {
		held, err := holdsMessage(dir, sequence)
		if held {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another erasure may just have emptied a block
			return fmt.Errorf("%w: %w", events.ErrUnavailable, err)
		}
		if err := pause(ctx, writePoll); err != nil {
			return fmt.Errorf("%w: message %d is not in %s: %w", events.ErrUnavailable, sequence, dir, err)
		}
	}
}

func (e *erasing) remove(ctx context.Context, progress func(removed, total int)) (removed int, err error) {
	due := make([][]uint64, len(erasedFrom))
	total := 0
	for i, stream := range erasedFrom {
		if due[i], err = e.due(ctx, stream); err != nil {
			return 0, err
		}
		total += len(due[i])
	}
	for i, stream := range erasedFrom {
		for _, sequence := range due[i] {
			began := time.Now()
			if err := e.l.remove(ctx, stream.Name(e.position.Partition), sequence); err != nil {
				return removed, err
			}
			removed++
			progress(removed, total)
			// The server holds up the appends to a stream while it writes one of its blocks anew: they get their turn.
			if err := pause(ctx, time.Since(began)); err != nil {
				return removed, err
			}
		}
	}
	return removed, nil
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// due returns the numbers of the messages that are still to be removed from a stream.
func (e *erasing) due(ctx context.Context, stream events.Stream) (sequences []uint64, err error) {
	p := e.position.Partition
	for batch, err := range e.l.ReadTo(ctx, stream, p, []string{stream.SubjectOf(e.account, p)}, 0, e.position.Sequence-1) {
		if err != nil {
			return nil, err
		}
		for _, m := range batch {
			if !m.Remains() {
				sequences = append(sequences, m.Sequence)
			}
		}
	}
	return sequences, nil
}

// remove deletes a message, and has the server write its block anew without it. One that is gone is as good.
func (l *Ledger) remove(ctx context.Context, name string, sequence uint64) error {
	refusal, err := l.askToDelete(ctx, name, sequence)
	if err != nil {
		return fmt.Errorf("%w: delete message %d of %s: %w", events.ErrUnavailable, sequence, name, explain(l.nc, deleteSubject+name, err))
	}
	if refusal == nil || refusal.ErrorCode == codeSequenceNotFound {
		return nil
	}
	// The server gives one code where the whole block is gone, and where its disk failed it. Then it cannot be asked for
	// the message, which it has written over in its memory alone; but it counts it.
	gone, err := l.lacks(ctx, name, sequence)
	if gone || err != nil {
		return err
	}
	if l.embedded != nil {
		l.embedded.doubt(refusal) // it writes nothing more, and does not say so
	}
	return fmt.Errorf("%w: delete message %d of %s: %w", events.ErrUnavailable, sequence, name, refusal)
}

// lacks says whether a stream counts no message under a number.
func (l *Ledger) lacks(ctx context.Context, name string, sequence uint64) (bool, error) {
	info, err := l.streams[name].Info(ctx, jetstream.WithDeletedDetails(true))
	if err != nil {
		return false, fmt.Errorf("%w: what %s lacks: %w", events.ErrUnavailable, name, err)
	}
	_, gone := slices.BinarySearch(info.State.Deleted, sequence)
	return gone || sequence < info.State.FirstSeq, nil
}

// askToDelete asks again where a server does not answer in time: rewriting a block takes long on a busy disk, and to
// delete what is deleted does no harm. Where it may not be asked, that is not tried.
func (l *Ledger) askToDelete(ctx context.Context, name string, sequence uint64) (refusal *jetstream.APIError, err error) {
	for range deleteTries {
		refusal, err = l.askOnce(ctx, name, sequence)
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil || errors.Is(l.nc.LastError(), nats.ErrPermissionViolation) {
			break
		}
	}
	return refusal, err
}

func (l *Ledger) askOnce(ctx context.Context, name string, sequence uint64) (refusal *jetstream.APIError, err error) {
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	question, err := json.Marshal(map[string]uint64{"seq": sequence})
	if err != nil {
		return nil, err
	}
	reply, err := l.nc.RequestWithContext(ctx, deleteSubject+name, question)
	if err != nil {
		return nil, err
	}
	var answer struct {
		Error *jetstream.APIError `json:"error"`
	}
	err = json.Unmarshal(reply.Data, &answer)
	return answer.Error, err
}

// AppendUnopened records the request to erase an account durably, as Append does, unless a request to open the account is
// there: the server itself looks, as it takes the message. The error is ErrFenced where it refuses.
func (l *Ledger) AppendUnopened(ctx context.Context, r *events.Request) (events.Position, error) {
	p := r.Partition(l.Partitions)
	if err := l.check(); err != nil {
		return events.Position{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, ackTimeout)
	defer cancel()
	m := natsMessage(r.Message(l.Partitions))
	ack, err := l.js.PublishMsg(ctx, m,
		jetstream.WithExpectLastSequenceForSubject(0, events.OpeningsSubject(r.Account, p)))
	if fenced(err) {
		return events.Position{}, fmt.Errorf("%w: account %s is being opened", events.ErrFenced, r.Account)
	}
	if err != nil {
		return events.Position{}, appendError(explain(l.nc, m.Subject, err))
	}
	return events.Position{Partition: p, Sequence: ack.Sequence}, l.appenders[p].sync(ack.Sequence)
}
