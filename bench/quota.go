package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"jobtally/internal/token"
)

const quotaConnections = 64

// quotaRows are those of GET /api/jobs/quota.
func (s *suite) quotaRows() []row {
	what := fmt.Sprintf("GET /api/jobs/quota, %d connections, %d accounts", quotaConnections, s.size.accounts)
	read := func(ctx context.Context) (sample, error) { return s.quotaReads(ctx, false) }
	return []row{
		{
			name: "quota", what: what, unit: "/s", goal: goal{leastRatio: 0.8}, measure: read,
			against:  "internal/http with a backend whose token and quota are constants: the same routes, middleware, authentication and handler, no SQLite, in a process of its own",
			baseline: func(ctx context.Context) (sample, error) { return s.constantReads(ctx, serveConstant) },
		},
		{
			name: "quota-bare", what: what + ", against bare echo", unit: "/s", measure: read,
			against:  "an echo handler that answers a constant JSON text, without any middleware, in a process of its own",
			baseline: func(ctx context.Context) (sample, error) { return s.constantReads(ctx, serveBare) },
		},
		{
			name: "quota-304", what: what + ", If-None-Match, 304", unit: "/s",
			against:  "the same without If-None-Match, answered 200",
			measure:  func(ctx context.Context) (sample, error) { return s.quotaReads(ctx, true) },
			baseline: read,
		},
	}
}

// quotaReads reads the quotas of accounts that have captured nothing, so that all have one entity tag.
func (s *suite) quotaReads(ctx context.Context, unchanged bool) (result sample, err error) {
	d, err := s.accounts(ctx)
	if err != nil {
		return result, err
	}
	err = s.withCopy(ctx, d.path, func(running *service) error {
		tokens := d.tokens()
		l := s.quotaLoad(running.addr, tokens)
		if unchanged {
			etag, err := quotaETag(running.addr, tokens[0])
			if err != nil {
				return err
			}
			l.form, l.status = quotaForm(etag), 304
		}
		r, err := l.run(ctx)
		result = r.sample
		return err
	})
	return result, err
}

func (s *suite) quotaLoad(addr string, tokens []string) *load {
	return &load{
		addr: addr, connections: quotaConnections, warmup: s.size.warmup, window: s.size.window,
		form: quotaForm(""), tokens: tokens, status: 200,
	}
}

// quotaETag returns the entity tag of an account's quota.
func quotaETag(addr, token string) (etag string, err error) {
	c, err := dial(addr, time.Now().Add(stall))
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	form := quotaForm("")
	if _, _, err := c.exchange(form.fill(token, 0)); err != nil {
		return "", err
	}
	if c.etag == "" {
		return "", errors.New("the answer has no ETag")
	}
	return c.etag, nil
}

// constantReads reads the quota from a baseline server, which is this program started as another process.
func (s *suite) constantReads(ctx context.Context, kind string) (result sample, err error) {
	self, err := os.Executable()
	if err != nil {
		return result, err
	}
	t := token.New().Reveal()
	running, err := startProcess(ctx, self, "--serve", kind, "--token", t)
	if err != nil {
		return result, err
	}
	err = running.use(func() error {
		r, err := s.quotaLoad(running.addr, []string{t}).run(ctx)
		result = r.sample
		return err
	})
	return result, err
}
