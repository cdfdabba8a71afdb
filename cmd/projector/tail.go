package main

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
	"jobtally/internal/near"
	"jobtally/internal/node"
)

// againEvery is how often tail tries to reach a ledger that was lost.
const againEvery = 250 * time.Millisecond

type tailCmd struct {
	Account string   `placeholder:"NAME" help:"Show the decisions on this account only."`
	Type    []string `placeholder:"TYPE" help:"Show decisions of this type only, such as jobtally.job.captured, of any version, or jobtally.job.captured.v1. Several: again, or apart by commas."`
	From    start    `placeholder:"WHERE" help:"Begin behind a position (0-17, or 0-0 for the beginning) of the one partition that is then shown, with a month (2026-10), at the beginning, or now (default: with the last --lines)."`
	Lines   int      `short:"n" default:"10" placeholder:"N" help:"How many of the decisions that are there to show, unless --from says where to begin (default: ${default})."`
	JSON    bool     `name:"json" help:"Print each as a CloudEvent in JSON, as it is in exported months."`
	Follow  bool     `negatable:"" default:"true" help:"Go on with what is decided from now on (default), or end with what is there."`
	access
}

// Run prints decisions until it is told to stop, or those that are there.
func (c *tailCmd) Run(s *session) (err error) {
	if err := c.check(); err != nil {
		return err
	}
	reading := *s
	var stop func()
	reading.ctx, stop = whileRead(s.ctx, s.stdout)
	defer stop()
	s = &reading
	out := bufio.NewWriter(s.stdout)
	t := &tail{tailCmd: c, session: s, out: out, printer: c.printer(s, out)}
	defer func() { err = errors.Join(err, out.Flush()) }()
	return t.run()
}

// check refuses what cannot be shown of any ledger.
func (c *tailCmd) check() error {
	if c.Account != "" {
		if err := events.ValidAccount(c.Account); err != nil {
			return usage("%w", err)
		}
	}
	if c.Lines < 0 {
		return usage("--lines is 0 or more")
	}
	for _, wanted := range c.Type {
		if err := knownType(wanted); err != nil {
			return err
		}
	}
	return nil
}

// knownType returns an error that says which types there are, unless one is that of a decision, with or without its version.
func knownType(wanted string) error {
	isWanted := func(ceType string) bool { return events.IsOfType(ceType, wanted) }
	types := events.DecisionTypes()
	if slices.ContainsFunc(types, isWanted) {
		return nil
	}
	if slices.ContainsFunc(events.QuotaEventTypes(), isWanted) {
		return usage("--type %s is an event that follows from a decision, and not in the ledger: look for %s or %s",
			wanted, events.TypeJobCaptured, events.TypeMonthArchived)
	}
	meant := near.Type(wanted, types)
	if meant != "" {
		meant = "did you mean " + meant + "? "
	}
	return usage("--type %q is not known: %sthere are %s", wanted, meant, strings.Join(types, ", "))
}

// tail is what is being shown of a ledger.
type tail struct {
	*tailCmd
	*session
	out     *bufio.Writer
	printer func(m *events.Message, partition int) error

	ledger   string         // its id
	subjects []string       // of the account, in its partition, or none
	after    map[int]uint64 // by partition that is shown: the last decision that was shown, or passed over
	since    time.Time      // what was asked for before is passed over
}

// run shows what is there, and goes on with what comes, on one connection after the other.
func (t *tail) run() (err error) {
	o, err := node.Inspect(t.ctx, node.Config{NATS: t.NATS, Dir: t.dir(), Log: quiet})
	if err != nil {
		return t.unlessStopped(err)
	}
	defer func() { err = errors.Join(err, o.Close()) }()
	if err := t.begin(o.Ledger); err != nil {
		return t.unlessStopped(err)
	}
	for {
		err := t.show(o)
		if t.ctx.Err() != nil || err == nil {
			return nil
		}
		if !t.Follow || o.Alone || !errors.Is(err, events.ErrUnavailable) {
			return err
		}
		o.Close() // it would connect to the service that starts next, which has another password, and logs that as an error
		t.log.Warn("the ledger cannot be reached: going on as soon as it can", "error", err)
		next, err := t.again()
		if err != nil {
			return t.unlessStopped(err)
		}
		t.log.Info("the ledger is back: going on")
		*o = *next
	}
}

// quiet is the log of connections: what it would say of lost ones tail says itself.
var quiet = slog.New(slog.DiscardHandler)

func (t *tail) unlessStopped(err error) error {
	if t.ctx.Err() != nil {
		return nil
	}
	return err
}

// show shows everything up to the heads, and then, where that is wanted and somebody runs to decide, what comes.
func (t *tail) show(o *node.Operator) error {
	heads, err := t.heads(o.Ledger)
	if err != nil {
		return err
	}
	if err := t.history(o.Ledger, heads); err != nil || !t.Follow {
		return err
	}
	if o.Alone {
		_, err := fmt.Fprintf(t.stderr, "no service runs on %s: nothing more is decided. Start `api --data %s`\n", t.dir(), t.dir())
		return err
	}
	return t.live(o.Ledger)
}

// heads returns the last decision of each partition that is shown.
func (t *tail) heads(l *ledger.Ledger) (map[int]uint64, error) {
	heads := map[int]uint64{}
	for p := range t.after {
		h, err := l.Heads(t.ctx, p)
		if err != nil {
			return nil, err
		}
		heads[p] = h.Decisions
	}
	return heads, nil
}

// again reaches the ledger once more, when it has everything that was shown. It never opens one that no service runs: whoever
// starts that needs its directory.
func (t *tail) again() (*node.Operator, error) {
	for {
		select {
		case <-time.After(againEvery):
		case <-t.ctx.Done():
			return nil, t.ctx.Err()
		}
		url := t.NATS
		if url == "" {
			var err error
			if url, err = ledger.EmbeddedURL(t.dir()); err != nil {
				continue // it is stopped, or just starting
			}
		}
		o, err := node.Inspect(t.ctx, node.Config{NATS: url, Log: quiet})
		if err != nil {
			continue
		}
		if o.Ledger.ID != t.ledger {
			return nil, errors.Join(fmt.Errorf("what is there now is another ledger, %s, not %s", o.Ledger.ID, t.ledger), o.Close())
		}
		if t.reached(o.Ledger) {
			return o, nil
		}
		o.Close()
	}
}

// reached says whether a ledger has what was shown: decisions may be lost with a server, and are then appended again.
func (t *tail) reached(l *ledger.Ledger) bool {
	heads, err := t.heads(l)
	if err != nil {
		return false
	}
	for p, after := range t.after {
		if heads[p] < after {
			return false
		}
	}
	return true
}

// take shows a message of a partition, if it is wanted. It is the next one there.
func (t *tail) take(p int, m *events.Message) error {
	t.after[p] = m.Sequence
	if !t.wants(m) {
		return nil
	}
	return t.printer(m, p)
}

func (t *tail) wants(m *events.Message) bool {
	if m.Void() || t.subjects != nil && !slices.ContainsFunc(t.subjects, func(filter string) bool { return events.Matches(m.Subject, filter) }) {
		return false
	}
	isType := func(wanted string) bool { return events.IsOfType(headerOf(m, "ce-type"), wanted) }
	return (len(t.Type) == 0 || slices.ContainsFunc(t.Type, isType)) && (t.since.IsZero() || !askedAt(m).Before(t.since))
}

func headerOf(m *events.Message, name string) string {
	if values := m.Header[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// askedAt returns the time of the request that a decision is on, or the zero time where that cannot be read.
func askedAt(m *events.Message) time.Time {
	at, _ := time.Parse(time.RFC3339Nano, headerOf(m, "ce-time"))
	return at
}
