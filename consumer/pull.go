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
)

const (
	pullExpires   = time.Minute
	pullHeartbeat = 15 * time.Second
	pullStatuses  = 64 // that may wait beside the messages asked for
	closeTimeout  = time.Second
)

var (
	errSilence = errors.New("the server gives no sign of life")
	errStopped = errors.New("the server stopped delivering")
)

// pull asks a consumer for messages. It speaks the protocol itself: the iterators of the client library (nats.go 1.55.0) can come
// to wait for what they never asked for, and lose, for as long as AckWait, what arrives while they are stopped.
type pull struct {
	nc       *nats.Conn
	consumer string
	subject  string // to ask under
	batch    int
	asked    int // messages that the server was asked for and did not send yet

	sub     *nats.Subscription
	arrived chan *nats.Msg
	changed chan nats.Status
	silence *time.Timer
}

func newPull(nc *nats.Conn, subject, consumer string, batch int) (*pull, error) {
	p := &pull{nc: nc, consumer: consumer, subject: subject, batch: batch, arrived: make(chan *nats.Msg, 2*batch+pullStatuses)}
	var err error
	if p.sub, err = nc.ChanSubscribe(nc.NewInbox(), p.arrived); err != nil {
		return nil, err
	}
	p.changed = nc.StatusChanged(nats.CONNECTED, nats.CLOSED)
	p.silence = time.NewTimer(2 * pullHeartbeat)
	return p, nil
}

// next returns the next message. The error says why the server does not deliver; or it is that of ctx.
func (p *pull) next(ctx context.Context) (*nats.Msg, error) {
	p.silence.Reset(2 * pullHeartbeat)
	for {
		if err := p.ask(); err != nil {
			return nil, err
		}
		select {
		case m := <-p.arrived:
			if !isStatus(m) {
				p.asked = max(0, p.asked-1)
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
			p.asked = 0 // what was asked before the connection was lost may be forgotten
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
	p.asked = p.batch
	return p.nc.PublishRequest(p.subject, p.sub.Subject, question)
}

// isStatus says whether a message is one of the server about the questions.
func isStatus(m *nats.Msg) bool { return len(m.Data) == 0 && m.Header.Get("Status") != "" }

// heed takes note of what the server says: a heartbeat, that a question expired, or that it will not deliver.
func (p *pull) heed(m *nats.Msg) error {
	status, what := m.Header.Get("Status"), m.Header.Get("Description")
	switch {
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
	if p.nc.Status() != nats.CONNECTED || p.sub.Drain() != nil {
		p.sub.Unsubscribe() // nothing can arrive
	} else {
		p.nc.FlushTimeout(closeTimeout)
	}
	for {
		select {
		case m := <-p.arrived:
			if m != nil && !isStatus(m) {
				left = append(left, m)
			}
		default:
			return left
		}
	}
}
