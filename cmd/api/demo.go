package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"jobtally/internal/cli"
	"jobtally/internal/events"
	"jobtally/internal/node"
	"jobtally/internal/token"
)

// The account of the first start.
const (
	demoAccount = "demo"
	demoPlan    = "free"
	demoToken   = "first start" // its name
)

func tokenFile(data string) string { return filepath.Join(data, "token") }

// demo opens an account with a token on the first start, so that there is something to try.
type demo struct {
	node  *node.Node
	file  string
	plans cli.Plans
	now   func() time.Time
}

// ensure opens the account and issues its token, and then prints how to use it, given what follows curl to reach the API.
// A first start that was cut short is taken up where it ended. Later starts find nothing to do: also when the account got
// another plan, the token was revoked, or its file removed.
func (d demo) ensure(ctx context.Context, stdout io.Writer, curl string) error {
	if done, err := d.done(ctx); done || err != nil {
		return err
	}
	limit, err := d.plans.Limit(demoPlan)
	if err != nil {
		return fmt.Errorf("%w; the first start opens account %s on plan %s", err, demoAccount, demoPlan)
	}
	t, err := d.token()
	if err != nil {
		return err
	}
	for _, body := range []events.RequestBody{
		&events.AccountOpenRequested{Plan: demoPlan, Limit: limit},
		&events.TokenIssueRequested{TokenID: t.ID(), SecretHash: t.Hash(), TokenTerms: events.TokenTerms{Name: demoToken, LastFour: t.LastFour()}},
	} {
		if err := d.ask(ctx, body); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(stdout, welcome, demoAccount, demoPlan, limit, curl, t.Reveal(), curl, t.Reveal(), d.file)
	return err
}

// done says whether the first start is over: the account was erased, the token in the file was issued, or there is no file
// although something was recorded, and so whoever runs this has other accounts or wants none of ours.
func (d demo) done(ctx context.Context) (bool, error) {
	if erased, err := d.node.Projection.Erased(ctx, demoAccount); erased || err != nil {
		return erased, err
	}
	if _, err := os.Stat(d.file); errors.Is(err, fs.ErrNotExist) {
		return d.node.Projection.Folded(events.PartitionOf(demoAccount, d.node.Ledger.Partitions)) > 0, nil
	}
	t, err := d.token()
	if err != nil {
		return d.opened(ctx), nil // a file that cannot be read is no matter once the account is there
	}
	issued, err := d.node.Projection.Tokens(ctx, t.ID())
	return len(issued) > 0, err
}

func (d demo) opened(ctx context.Context) bool {
	_, err := d.node.Projection.Quota(ctx, demoAccount, events.MonthOf(d.now()))
	return err == nil
}

const welcome = `
jobtally is running. Account %s is open on plan %s: %d captures a month.

Capture a job:

  curl -s %s/api/jobs \
    -H 'Authorization: Bearer %s' \
    -H 'Content-Type: application/json' \
    -d '{"source_url":"https://boards.greenhouse.io/example/jobs/4858822004","title":"Software Engineer","company":"Example"}'

Read the quota:

  curl -s %s/api/jobs/quota \
    -H 'Authorization: Bearer %s'

The token is kept in %s.

`

// token returns the token in the file, or a new one, which is in the file before anything else knows it.
func (d demo) token() (token.Token, error) {
	text, err := os.ReadFile(d.file)
	if errors.Is(err, fs.ErrNotExist) {
		t := token.New()
		return t, writeFile(d.file, t.Reveal()+"\n")
	}
	if err != nil {
		return token.Token{}, err
	}
	t, err := token.Parse(strings.TrimSpace(string(text)))
	if err != nil {
		return t, fmt.Errorf("%s: %w; remove the file and start again", d.file, err)
	}
	return t, nil
}

// writeFile writes a file that is there whole or not at all, also after a power failure, and for its owner only.
func writeFile(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.WriteString(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// ask appends a request for the demo account. A refusal because it is done already is as good as done.
func (d demo) ask(ctx context.Context, body events.RequestBody) error {
	position, err := d.node.Append(ctx, &events.Request{
		Account: demoAccount, ID: "first-start-" + events.KindOf(body), Time: d.now().UTC(), Body: body,
	})
	if err != nil {
		return err
	}
	decision, err := d.node.Projection.Await(ctx, position)
	if err != nil {
		return err
	}
	refused, ok := decision.Body.(*events.RequestRefused)
	if ok && refused.Reason != events.ReasonAccountExists && refused.Reason != events.ReasonTokenExists {
		return fmt.Errorf("first start: refused at %s: %s", position, refused.Detail)
	}
	return nil
}
