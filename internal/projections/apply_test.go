package projections

import (
	"slices"
	"testing"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

func TestApplyFoldsRowsDigestAndPosition(t *testing.T) {
	t.Parallel()
	db, decisions := newDB(t), history(t)
	ok(t, db.Apply(0, nil)) // nothing is nothing
	ok(t, db.Apply(0, decisions))

	_, state := decideAll(recorded(t)) // fold what was decided, not what would be
	for i := range decisions {
		state.Fold(&decisions[i])
	}
	auditDB(t, db, decisions, state)
	got := column(t, db, "SELECT account || ' ' || month || ' ' || used || ' ' || duplicated || ' ' || rejected || ' ' || repeated FROM months")
	if want := []string{"demo 2026-11 20 1 10 1", "nobody 2026-11 0 0 0 0"}; !slices.Equal(got, want) {
		t.Fatalf("months %q, want %q", got, want)
	}
}

func TestApplyRefusesWhatDoesNotFollow(t *testing.T) {
	t.Parallel()
	decisions := history(t)
	const folded = 5
	next := decisions[folded:]
	// sealed is a decision that follows from the last one folded, with another body.
	sealed := func(body events.DecisionBody) events.Decision {
		d := next[0]
		d.Body = body
		d.Seal(decisions[folded-1].Digest)
		return d
	}
	captured := func(change func(*events.JobCaptured)) events.Decision {
		body := *next[0].Body.(*events.JobCaptured)
		change(&body)
		return sealed(&body)
	}
	for name, refused := range map[string][]events.Decision{
		"one left out":          next[1:],
		"one again":             decisions[folded-1:],
		"one left out between":  {next[0], next[2]},
		"one twice":             {next[0], next[0]},
		"another partition":     {with(next[0], func(d *events.Decision) { d.Position.Partition = 1 })},
		"a digest that differs": {with(next[0], func(d *events.Decision) { d.Digest[0]++ })},
		"data that differs": {with(next[0], func(d *events.Decision) {
			d.Data = slices.Clone(d.Data)
			d.Data[len(d.Data)/2]++
		})},
		"another account":            {with(next[0], func(d *events.Decision) { d.Account = "other" })},
		"another request":            {with(next[0], func(d *events.Decision) { d.RequestDigest[0]++ })},
		"another chain":              {with(next[0], func(d *events.Decision) { d.Seal(events.Digest{1}) })},
		"a broken chain between":     {next[0], with(next[1], func(d *events.Decision) { d.Seal(events.Digest{1}) })},
		"a count too high":           {captured(func(b *events.JobCaptured) { b.Used++ })},
		"a count too low":            {captured(func(b *events.JobCaptured) { b.Used-- })},
		"a count of another month":   {captured(func(b *events.JobCaptured) { b.Month = december })},
		"a job that is there":        {captured(func(b *events.JobCaptured) { b.JobID = decisions[2].Body.(*events.JobCaptured).JobID })},
		"a URL that is there":        {captured(func(b *events.JobCaptured) { b.CanonicalURL = decisions[2].Body.(*events.JobCaptured).CanonicalURL })},
		"a request id that is there": {with(sealedID(next[0], decisions[2].RequestID, decisions[folded-1].Digest), func(*events.Decision) {})},
		"an account that is open":    {with(sealed(&events.AccountOpened{Plan: "plan", Limit: 1}), func(d *events.Decision) { d.Seal(events.Digest{}) })},
		"a rejection with another count": {sealed(&events.JobCaptureRejected{
			Reason: events.ReasonQuotaExceeded, Count: events.Count{Month: november, Used: 20, Limit: 20},
		})},
		"a wrong count that the next one makes good": {
			captured(func(b *events.JobCaptured) { b.Used += 7 }),
			with(next[1], func(d *events.Decision) {
				d.Seal(captured(func(b *events.JobCaptured) { b.Used += 7 }).Digest)
			}),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := newDB(t)
			ok(t, db.Apply(0, decisions[:folded]))
			before, digestBefore := dump(t, db), db.partitions[0].at.Digest

			err := db.Apply(0, refused)

			wantErr(t, err, ErrMismatch)
			if got := dump(t, db); got != before {
				t.Errorf("rows changed:\n%s\nwere\n%s", got, before)
			}
			if at, digest := db.Digest(0); at != folded || digest != digestBefore {
				t.Errorf("folded up to %d with %s, want %d with %s", at, digest, folded, digestBefore)
			}
			ok(t, db.Apply(0, next)) // what does follow still folds
		})
	}
}

func with(d events.Decision, change func(*events.Decision)) events.Decision {
	change(&d)
	return d
}

func sealedID(d events.Decision, id string, previous events.Digest) events.Decision {
	return with(d, func(d *events.Decision) {
		d.RequestID = id
		d.Seal(previous)
	})
}

// What an ended process leaves in the middle of a transaction is nothing at all.
func TestApplyIsAllOrNothing(t *testing.T) {
	t.Parallel()
	db, decisions := newDB(t), history(t)
	ok(t, db.Apply(0, decisions[:5]))
	before := dump(t, db)
	_, err := db.writer.ExecContext(within(t), "CREATE TEMP TRIGGER at_the_end BEFORE UPDATE ON partitions BEGIN SELECT RAISE(ABORT, 'the last write fails'); END")
	ok(t, err)

	if err := db.Apply(0, decisions[5:]); err == nil {
		t.Fatal("no error")
	}
	if got := dump(t, db); got != before {
		t.Fatalf("rows changed:\n%s\nwere\n%s", got, before)
	}
	_, err = db.writer.ExecContext(within(t), "DROP TRIGGER at_the_end")
	ok(t, err)
	ok(t, db.Apply(0, decisions[5:]))
}

func TestQueries(t *testing.T) {
	t.Parallel()
	db, decisions, ctx := newDB(t), history(t), within(t)
	ok(t, db.Apply(0, decisions))
	last := uint64(len(decisions))

	if q := must[capture.Quota](t)(db.Quota(ctx, "demo", november)); q != (capture.Quota{Month: november, Used: 20, Limit: -1}) {
		t.Errorf("quota %+v", q)
	}
	if q := must[capture.Quota](t)(db.Quota(ctx, "demo", december)); q != (capture.Quota{Month: december, Limit: -1}) {
		t.Errorf("quota of a month without a capture: %+v", q)
	}
	_, err := db.Quota(ctx, "nobody", november)
	wantErr(t, err, events.ErrNotFound)

	first := decisions[1].Body.(*events.JobCaptured)
	job := must[capture.StoredJob](t)(db.Job(ctx, "demo", first.JobID))
	if job.ID != first.JobID || job.Job != first.Job || !job.CapturedAt.Equal(decisions[1].Time) {
		t.Errorf("job %+v", job)
	}
	for account, id := range map[string]string{"demo": "job_none", "other": first.JobID} {
		_, err := db.Job(ctx, account, id)
		wantErr(t, err, events.ErrNotFound)
	}

	tokens := must[[]capture.Token](t)(db.Tokens(ctx, "t1"))
	if len(tokens) != 1 || tokens[0].ID != "t1" || tokens[0].Account != "demo" || tokens[0].SecretHash != events.Hash([]byte("secret")) || !tokens[0].Revoked {
		t.Errorf("tokens %+v", tokens)
	}
	if tokens := must[[]capture.Token](t)(db.Tokens(ctx, "t2")); len(tokens) != 0 {
		t.Errorf("tokens %+v", tokens)
	}

	for i := range decisions {
		got := must[events.Decision](t)(db.Decision(ctx, decisions[i].Position))
		if difference := differ(decisions[i].Message(), got.Message()); difference != "" {
			t.Errorf("decision %d: %s", i+1, difference)
		}
	}
	for _, p := range []events.Position{{Sequence: last + 1}, {Partition: 1, Sequence: 1}} {
		_, err := db.Decision(ctx, p)
		wantErr(t, err, events.ErrNotFound)
	}
	page := must[[]events.Decision](t)(db.Decisions(ctx, 0, 3, 4))
	if len(page) != 4 || page[0].Position.Sequence != 4 || page[3].Position.Sequence != 7 {
		t.Errorf("page %v", page)
	}
}
