package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// capture gathers the row of a job that was captured.
func (b *batch) capture(d *events.Decision, body *events.JobCaptured) {
	at := int64(d.Position.Sequence)
	b.jobs = append(b.jobs, d.Account, at, int64(d.Position.Partition), body.JobID, urlKey(body.CanonicalURL), string(body.Month),
		int64(1), at, body.Job.Status, body.Job.CapturedVia, companyKey(body.Job.Company))
	if account := b.accounts[d.Account]; account != nil {
		account.loose++
	}
}

// companyKey is the form of a company in a job's row: names that differ only in case, or in white space around them, have
// one. What is found by it is compared no further, for that two names of one account share 64 bits does not happen.
func companyKey(company string) []byte {
	digest := events.Hash([]byte(strings.ToLower(strings.TrimSpace(company))))
	return digest[:8]
}

// updateJob writes the next version of a job. Updates are rare beside captures, and are written one by one.
func (b *batch) updateJob(d *events.Decision, body *events.JobUpdated) error {
	sequence, changed, err := b.storedJob(d, body.JobID, body.Version)
	if err != nil {
		return err
	}
	if account := b.accounts[d.Account]; account != nil && changed <= account.indexed {
		account.loose++
	}
	_, err = b.db.writes.update.Exec(int64(d.Position.Sequence), body.Job.Status, companyKey(body.Job.Company), d.Account, sequence)
	return err
}

func (b *batch) deleteJob(d *events.Decision, body *events.JobDeleted) error {
	sequence, changed, err := b.storedJob(d, body.JobID, body.Version)
	if err != nil {
		return err
	}
	if account := b.accounts[d.Account]; account != nil && changed > account.indexed {
		account.loose--
	}
	_, err = b.db.writes.remove.Exec(d.Account, sequence)
	return err
}

// storedJob returns the sequences of a job's row, which must have the version before the one that a decision makes of it.
func (b *batch) storedJob(d *events.Decision, id string, next int64) (sequence, changed int64, err error) {
	if err := b.writeJobs(); err != nil { // the job may be one of them
		return 0, 0, err
	}
	var version int64
	err = b.db.writes.stored.QueryRow(d.Account, id).Scan(&sequence, &version, &changed)
	if errors.Is(err, sql.ErrNoRows) || err == nil && version+1 != next {
		return 0, 0, fmt.Errorf("%w: job %s of account %s has version %d, the decision makes %d of it; %s",
			ErrMismatch, id, d.Account, version, next, b.db.remedy())
	}
	return sequence, changed, err
}

// contentOf returns what a decision says of a job, and its canonical URL.
func contentOf(ceType string, data []byte) (*events.Job, string, error) {
	body, err := events.DecodeBody(ceType, data)
	if err != nil {
		return nil, "", err
	}
	switch b := body.(type) {
	case *events.JobCaptured:
		return &b.Job, b.CanonicalURL, nil
	case *events.JobUpdated:
		return &b.Job, b.CanonicalURL, nil
	}
	return nil, "", fmt.Errorf("%w: a job has the content of a %s", ErrMismatch, ceType)
}

// storedJob is a job with what it is ordered by.
type storedJob struct {
	capture.StoredJob
	sequence, changed uint64
}

// scanJob reads jobColumns, behind others.
func scanJob(scan func(...any) error, before ...any) (job storedJob, err error) {
	var captured, updated, ceType string
	var data []byte
	into := append(before, &job.sequence, &job.ID, &job.Version, &job.changed, &captured, &updated, &ceType, &data)
	if err := scan(into...); err != nil {
		return job, err
	}
	if job.CapturedAt, err = parseTime(captured); err != nil {
		return job, err
	}
	if job.UpdatedAt, err = parseTime(updated); err != nil {
		return job, err
	}
	content, _, err := contentOf(ceType, data)
	if err == nil {
		job.Job = *content
	}
	return job, err
}

// Job returns a job in an account's tracker. The error is ErrNotFound when it has none under that id.
func (db *DB) Job(ctx context.Context, account, id string) (capture.StoredJob, error) {
	if err := db.hold(&db.reads.job); err != nil {
		return capture.StoredJob{}, err
	}
	defer db.pass()
	job, err := scanJob(db.reads.job.QueryRowContext(context.WithoutCancel(ctx), account, id).Scan)
	return job.StoredJob, db.readError(err)
}

// Lookup returns the jobs of an account that have one of some canonical URLs, by it.
func (db *DB) Lookup(ctx context.Context, account string, canonicalURLs []string) (map[string]capture.StoredJob, error) {
	if err := db.hold(&db.reads.lookup); err != nil {
		return nil, err
	}
	defer db.pass()
	keys := make([]string, len(canonicalURLs))
	for i, url := range canonicalURLs {
		keys[i] = fmt.Sprintf("%x", urlKey(url))
	}
	list, err := json.Marshal(keys)
	if err != nil {
		return nil, err
	}
	found := map[string]capture.StoredJob{}
	rows, err := db.reads.lookup.QueryContext(context.WithoutCancel(ctx), account, string(list))
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var i int
		job, err := scanJob(rows.Scan, &i)
		if err == nil {
			found[canonicalURLs[i]] = job.StoredJob
		}
		return err
	})
	return found, db.readError(err)
}
