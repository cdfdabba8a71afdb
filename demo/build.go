package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/node"
)

// closed is how long after its beginning a month is when the one before it is closed: some time more than the grace.
const closed = 10 * time.Minute

// builder runs a node through the story.
type builder struct {
	config   node.Config
	node     *node.Node
	sequence uint64 // of the last request
	asked    []*events.Request
}

// build tells the story month by month. At the beginning of each, requests of the new month and of the old one come while
// the old one is not closed yet.
func (b *builder) build(ctx context.Context, months [4]events.Month, now time.Time) error {
	for i, month := range months {
		start, end := month.Start(), month.Next().Start()
		if i == len(months)-1 {
			end = later(now, start.Add(closed+time.Minute))
		}
		if i > 0 {
			grace := func(ctx context.Context) error { return b.tell(ctx, story[i].grace, start, start.Add(time.Minute)) }
			if err := b.at(ctx, start.Add(time.Minute), grace); err != nil {
				return err
			}
		}
		err := b.at(ctx, start.Add(closed), func(ctx context.Context) error {
			if i > 0 {
				b.sequence++ // the closing, which the projector asks for as it starts
				if err := b.await(ctx); err != nil {
					return err
				}
			}
			return b.tell(ctx, story[i].month, start.Add(closed), end)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// at runs a node whose clock stands still.
func (b *builder) at(ctx context.Context, now time.Time, use func(context.Context) error) (err error) {
	b.config.Now = func() time.Time { return now }
	if b.node, err = node.Start(ctx, b.config); err != nil {
		return err
	}
	return errors.Join(use(ctx), b.node.Close())
}

// tell asks for what happens between two times, at equal distances.
func (b *builder) tell(ctx context.Context, steps []step, from, to time.Time) error {
	for i, s := range steps {
		at := from.Add(to.Sub(from) / time.Duration(len(steps)+1) * time.Duration(i+1)).UTC().Truncate(time.Second)
		r, err := b.request(s, at)
		if err != nil {
			return err
		}
		position, err := b.node.Append(ctx, r)
		if err != nil {
			return err
		}
		b.sequence, b.asked = position.Sequence, append(b.asked, r)
		if err := b.await(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (b *builder) await(ctx context.Context) error {
	_, err := b.node.Projection.Await(ctx, events.Position{Sequence: b.sequence})
	return err
}

// request makes what the service would make of a step.
func (b *builder) request(s step, at time.Time) (*events.Request, error) {
	if s.again {
		for i := len(b.asked) - 1; i >= 0; i-- {
			if before := b.asked[i]; before.Account == s.account && events.KindOf(before.Body) == "job_capture" {
				return &events.Request{Account: s.account, ID: before.ID, Time: at, Body: before.Body}, nil
			}
		}
	}
	r := &events.Request{Account: s.account, ID: fmt.Sprintf("demo-%04d", len(b.asked)+1), Time: at.Add(-s.late)}
	switch {
	case s.plan == "":
		body, err := captureOf(s, r.Time)
		r.Body = body
		return r, err
	case s.opens:
		r.Body = &events.AccountOpenRequested{Plan: s.plan, Limit: s.limit}
	default:
		r.Body = &events.PlanChangeRequested{Plan: s.plan, Limit: s.limit}
	}
	return r, nil
}

func captureOf(s step, at time.Time) (*events.JobCaptureRequested, error) {
	p := postings[s.job]
	job := events.Job{
		SourceURL: p.url + s.spelling, Title: p.title, Company: p.company, JobType: "full_time",
		Status: events.Statuses()[s.job%3], CapturedVia: events.CapturedVia()[s.job%2],
	}
	canonical, err := capture.CanonicalSource(job.SourceURL)
	if err != nil {
		return nil, err
	}
	payload, err := json.Marshal(job)
	return &events.JobCaptureRequested{
		Month: events.MonthOf(at), Job: job, CanonicalURL: canonical, SourceRules: capture.SourceRules,
		PayloadHash: events.Hash(payload),
	}, err
}
