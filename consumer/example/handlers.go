package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/ThreeDotsLabs/watermill/components/cqrs"

	"jobtally/consumer"
)

// handlers print a line for each event that they take. Events come at least once: a line may come twice, with the same position.
type handlers struct {
	out    io.Writer
	failOn string
}

func (h *handlers) captured(ctx context.Context, e *consumer.JobCaptured) error {
	if h.failOn != "" && strings.Contains(e.Job.Title, h.failOn) {
		return fmt.Errorf("%q has %q in it", e.Job.Title, h.failOn)
	}
	return h.print(ctx, "captured %q at %s: %s", e.Job.Title, e.Job.Company, used(e.Count))
}

func (h *handlers) rejected(ctx context.Context, e *consumer.JobCaptureRejected) error {
	return h.print(ctx, "rejected %s, %s: %s until %s", e.SourceURL, e.Reason, used(e.Count), e.ResetDate)
}

func (h *handlers) updated(ctx context.Context, e *consumer.JobUpdated) error {
	return h.print(ctx, "updated %q, version %d: %s", e.Job.Title, e.Version, strings.Join(e.Changed, ", "))
}

func (h *handlers) deleted(ctx context.Context, e *consumer.JobDeleted) error {
	return h.print(ctx, "deleted %s", e.CanonicalURL)
}

func (h *handlers) print(ctx context.Context, format string, args ...any) error {
	meta := cqrs.OriginalMessageFromCtx(ctx).Metadata
	_, err := fmt.Fprintf(h.out, "%s %s %s\n", meta.Get(consumer.MetadataPosition), meta.Get(consumer.MetadataAccount), fmt.Sprintf(format, args...))
	return err
}

func used(c consumer.Count) string {
	if c.Limit < 0 {
		return fmt.Sprintf("%d used in %s", c.Used, c.Month)
	}
	return fmt.Sprintf("%d of %d used in %s", c.Used, c.Limit, c.Month)
}
