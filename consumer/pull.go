package consumer

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	pullExpires   = 30 * time.Second
	pullHeartbeat = 5 * time.Second // silence for twice that long, and the consumer is looked for
	pullStatuses  = 64              // that may wait beside the messages asked for
	restLeft      = time.Second     // of a rest that is cut short: with less the message may be with another subscriber by then
	closeTimeout  = time.Second
)

var (
	errSilence = errors.New("the server gives no sign of life")
	errStopped = errors.New("the server stopped delivering")

	// refused is a question that the server refuses with 400, once it has come to it: without a time no heartbeat fits into it.
	refused = []byte(`{"idle_heartbeat":1}`)
)

// pull asks a consumer for messages. It speaks the protocol itself: the iterators of the client library (nats.go 1.55.0) can come
// to wait for what they never asked for, and lose, for as long as AckWait, what arrives while they are stopped.
type pull struct {
	nc       *nats.Conn
	consumer string
	subject  string // to ask under
	batch    int
	asked    int       // messages that the server was asked for and did not send yet
	owed     *nats.Msg // the last answer to a message, until the server confirms it
	wake     <-chan struct{}
	resting  *nats.Msg // the message that was given back last, and rests at the server,
	until    time.Time // which gives it to nobody before then

	sub     *nats.Subscription
	arrived chan *nats.Msg
	changed chan nats.Status
	silence *time.Timer
}

func (s *Subscriber) newPull(stream, consumer string, batch int) (p *pull, err error) {
	nc := s.config.Conn
	p = &pull{
		nc: nc, consumer: consumer, wake: s.config.Wake, subject: s.prefix() + "CONSUMER.MSG.NEXT." + stream + "." + consumer,
		batch: batch, arrived: make(chan *nats.Msg, 2*batch+pullStatuses),
	}
	if p.sub, err = nc.ChanSubscribe(nc.NewInbox(), p.arrived); err != nil {
		return nil, err
	}
	p.changed = nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	p.silence = time.NewTimer(2 * pullHeartbeat)
	return p, nil
}

// prefix is what the subjects of questions to JetStream begin with.
func (s *Subscriber) prefix() string {
	if s.config.Domain == "" {
		return jetstream.DefaultAPIPrefix
	}
	return "$JS." + s.config.Domain + ".API."
}

// next returns the next message. The error says why the server does not deliver; or it is that of ctx.
func (p *pull) next(ctx context.Context) (*nats.Msg, error) {
	p.silence.Reset(2 * pullHeartbeat)
	for {
		if ctx.Err() != nil { // what is asked for now would have to be given back
			return nil, ctx.Err()
		}
		if err := p.ask(); err != nil {
			return nil, err
		}
		select {
		case m := <-p.arrived:
			if isMessage(m) {
				p.asked, p.resting = max(0, p.asked-1), nil
				return m, nil
			}
			if err := p.heed(m); err != nil {
				return nil, err
			}
			p.silence.Reset(2 * pullHeartbeat)
		case status := <-p.changed:
			if status == nats.CLOSED {
				return nil, nats.ErrConnectionClosed
			}
			// What was asked and answered before the connection was lost may not have arrived, and the server may know of no rest.
			p.asked, p.resting = 0, nil
			p.repeat()
		case <-p.wake:
			p.rouse()
		case <-p.silence.C:
			return nil, lacksRight(p.nc, p.subject, errSilence)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ask asks for as many messages as the batch lacks, once it lacks half of them.
func (p *pull) ask() error {
	if p.asked > p.batch/2 {
		return nil
	}
	question, err := json.Marshal(map[string]any{
		"batch": p.batch - p.asked, "expires": pullExpires, "idle_heartbeat": pullHeartbeat,
	})
	if err != nil {
		return err
	}
	err = p.nc.PublishRequest(p.subject, p.sub.Subject, question)
	if err == nil {
		p.asked = p.batch
	}
	if errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	return nil // it is asked again when the connection is back
}

// answer answers a message, and repeats that until the server confirms it: an answer that was lost with a connection would hold up
// the stream for AckWait, and have a message delivered again that was acked.
func (p *pull) answer(m *nats.Msg, answer []byte) {
	p.owed = &nats.Msg{Subject: m.Reply, Reply: p.sub.Subject, Data: answer}
	p.repeat()
}

// giveBack has a message rest at the server before it comes again.
func (p *pull) giveBack(m *nats.Msg, rest time.Duration) {
	p.resting, p.until = m, time.Now().Add(rest)
	p.answer(m, nakAfter(rest))
}

// rouse has the message that rests come again at once. It is said once only: repeated, it would take the message from whoever
// has it by then. Where it is lost, the message rests to its end.
func (p *pull) rouse() {
	if p.resting != nil && time.Until(p.until) > restLeft {
		p.owed = nil
		p.nc.Publish(p.resting.Reply, nak)
	}
	p.resting = nil
}

func (p *pull) repeat() {
	if p.owed != nil {
		p.owed.Reply = p.sub.Subject
		p.nc.PublishMsg(p.owed) // or once the connection is back
	}
}

// isMessage tells a message of the stream from what the server says.
func isMessage(m *nats.Msg) bool {
	return m.Reply != "" && (len(m.Data) > 0 || m.Header.Get("Status") == "")
}

// heed takes note of what the server says: that it took an answer, is alive, that a question expired, or that it will not deliver.
func (p *pull) heed(m *nats.Msg) error {
	status, what := m.Header.Get("Status"), m.Header.Get("Description")
	switch {
	case status == "":
		p.owed = nil
		return nil
	case status == "100":
		return nil
	case status == "404", status == "408", status == "409" && strings.EqualFold(what, "Batch Completed"):
		left, _ := strconv.Atoi(m.Header.Get("Nats-Pending-Messages"))
		p.asked = max(0, p.asked-left)
		return nil
	case status == "503":
		what = "nobody answers for the consumer"
	}
	return fmt.Errorf("%w: %s %s", errStopped, status, what)
}

// close returns the messages that arrived and were not taken. Nothing arrives any more: the server has answered since it was told.
func (p *pull) close() (left []*nats.Msg) {
	p.nc.RemoveStatusListener(p.changed)
	p.silence.Stop()
	if p.nc.Status() == nats.CONNECTED && p.asked > 0 {
		left = p.settle()
	}
	if p.nc.Status() != nats.CONNECTED || p.sub.Drain() != nil {
		p.sub.Unsubscribe() // nothing can arrive
	} else {
		p.nc.FlushTimeout(closeTimeout)
	}
	for {
		select {
		case m := <-p.arrived:
			if isMessage(m) {
				left = append(left, m)
			}
		default:
			return left
		}
	}
}

// settle waits until the server has taken in what it was asked, and returns the messages that arrived meanwhile. A server
// (nats-server 2.15.2) that comes to the question of another account when its inbox is gone takes that for one that is there: the
// next message would go nowhere, and come again after AckWait.
func (p *pull) settle() (left []*nats.Msg) {
	if p.nc.PublishRequest(p.subject, p.sub.Subject, refused) != nil {
		return nil
	}
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	for {
		select {
		case m := <-p.arrived:
			if isMessage(m) {
				left = append(left, m)
				continue
			}
			switch m.Header.Get("Status") {
			case "400", "409", "503":
				return left
			}
		case <-timeout.C:
			return left
		}
	}
}
