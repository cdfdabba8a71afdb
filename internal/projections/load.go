package projections

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// wanted are the parts of the state that a batch of requests needs. Each list is handed to SQLite as one JSON array,
// so that a batch costs five statements whatever its size, and each answer names the element that it answers.
type wanted struct {
	accounts []string
	months   [][2]string // account, month
	urls     [][2]string // account, hexadecimal url_key
	captures []*events.Request
	requests [][2]string // account, request id
	tokens   [][2]string // account, token id
	jobs     [][2]string // account, job id

	closing *events.Request // of a month; nil in most batches
	closes  events.Month
	erasing *events.Request // of an account; nil in most batches
}

// Load returns the state that deciding the requests needs, as the folded decisions of the partition left it, and the
// last sequence of these. The error is ErrMismatch when the file is damaged.
func (db *DB) Load(partition int, requests []events.Request) (state *capture.State, position uint64, err error) {
	db.loadMu.Lock()
	defer db.loadMu.Unlock()
	if db.loader == nil {
		return nil, 0, db.closed()
	}
	// Apply may commit while this reads: all statements see the one state that the position is of.
	if _, err := db.loader.ExecContext(context.Background(), "BEGIN"); err != nil {
		return nil, 0, db.fail(err)
	}
	defer func() {
		_, ended := db.loader.ExecContext(context.Background(), "COMMIT") // of nothing: it only read
		err = errors.Join(err, ended)
	}()
	var at FoldedTo
	err = scanFolded(db.loads.position.QueryRow(partition).Scan, &at)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return nil, 0, db.fail(err)
	}
	w := collect(requests, at.Archived)
	state, position = capture.NewState(), at.Sequence
	state.Archived, state.Archive = at.Archived, at.Archive
	steps := []func(*capture.State, wanted) error{
		db.loadAccounts, db.loadMonths, db.loadJobs, db.loadTracked, db.loadFirstAnswers, db.loadTokens, db.loadClosing, db.loadErasing,
	}
	for _, step := range steps {
		if err := step(state, w); err != nil {
			return nil, 0, db.fail(fmt.Errorf("load state: %w", err))
		}
	}
	return state, position, nil
}

func collect(requests []events.Request, archived events.Month) (w wanted) {
	seen := map[string]bool{}
	for i := range requests {
		r := &requests[i]
		if !seen[r.Account] {
			seen[r.Account] = true
			w.accounts = append(w.accounts, r.Account)
		}
		switch b := r.Body.(type) {
		case *events.JobCaptureRequested:
			w.months = append(w.months, [2]string{r.Account, string(capture.CountsIn(b.Month, archived))})
			w.urls = append(w.urls, [2]string{r.Account, fmt.Sprintf("%x", urlKey(b.CanonicalURL))})
			w.requests = append(w.requests, [2]string{r.Account, r.ID})
			w.captures = append(w.captures, r)
		case *events.JobUpdateRequested:
			w.jobs = append(w.jobs, [2]string{r.Account, b.JobID})
		case *events.JobDeleteRequested:
			w.jobs = append(w.jobs, [2]string{r.Account, b.JobID})
		case *events.TokenIssueRequested:
			w.tokens = append(w.tokens, [2]string{r.Account, b.TokenID})
		case *events.TokenRevokeRequested:
			w.tokens = append(w.tokens, [2]string{r.Account, b.TokenID})
		case *events.MonthCloseRequested:
			w.closing, w.closes = r, b.Month
		case *events.AccountEraseRequested:
			w.erasing = r
		}
	}
	return w
}

// urlKey is the form of a canonical URL in the index: the first 128 bits of its SHA-256. That two URLs of one
// account share it does not happen.
func urlKey(canonical string) []byte {
	digest := events.Hash([]byte(canonical))
	return digest[:16]
}

func (db *DB) loadAccounts(state *capture.State, w wanted) error {
	return each(db.loads.accounts, w.accounts, func(rows *sql.Rows) error {
		var name, plan string
		var limit int64
		var digest []byte
		if err := rows.Scan(&name, &plan, &limit, &digest); err != nil {
			return err
		}
		account := capture.NewAccount(plan, limit)
		copy(account.Digest[:], digest)
		state.Accounts[name] = account
		return nil
	})
}

func (db *DB) loadMonths(state *capture.State, w wanted) error {
	return each(db.loads.months, w.months, func(rows *sql.Rows) error {
		var i int
		var used int64
		if err := rows.Scan(&i, &used); err != nil {
			return err
		}
		if account := state.Accounts[w.months[i][0]]; account != nil {
			account.Used[events.Month(w.months[i][1])] = used
		}
		return nil
	})
}

func (db *DB) loadJobs(state *capture.State, w wanted) error {
	return each(db.loads.jobs, w.urls, func(rows *sql.Rows) error {
		var i int
		var id string
		if err := rows.Scan(&i, &id); err != nil {
			return err
		}
		if account := state.Accounts[w.urls[i][0]]; account != nil {
			account.Jobs[w.captures[i].Body.(*events.JobCaptureRequested).CanonicalURL] = id
		}
		return nil
	})
}

func (db *DB) loadTracked(state *capture.State, w wanted) error {
	return each(db.loads.tracked, w.jobs, func(rows *sql.Rows) error {
		var i int
		var job capture.TrackedJob
		var ceType string
		var data []byte
		if err := rows.Scan(&i, &job.Version, &ceType, &data); err != nil {
			return err
		}
		var err error
		if job.Content, job.CanonicalURL, err = contentOf(ceType, data); err != nil {
			return err
		}
		if account := state.Accounts[w.jobs[i][0]]; account != nil {
			account.Tracked[w.jobs[i][1]] = job
		}
		return nil
	})
}

func (db *DB) loadFirstAnswers(state *capture.State, w wanted) error {
	return each(db.loads.firstAnswers, w.requests, func(rows *sql.Rows) error {
		var i int
		var first capture.FirstAnswer
		var hash []byte
		if err := rows.Scan(&i, &first.Position.Partition, &first.Position.Sequence, &hash); err != nil {
			return err
		}
		copy(first.PayloadHash[:], hash)
		if account := state.Accounts[w.requests[i][0]]; account != nil {
			account.First[w.requests[i][1]] = first
		}
		return nil
	})
}

func (db *DB) loadTokens(state *capture.State, w wanted) error {
	return each(db.loads.tokensOf, w.tokens, func(rows *sql.Rows) error {
		var i int
		var revoked bool
		if err := rows.Scan(&i, &revoked); err != nil {
			return err
		}
		if account := state.Accounts[w.tokens[i][0]]; account != nil {
			account.Tokens[w.tokens[i][1]] = !revoked
		}
		return nil
	})
}
