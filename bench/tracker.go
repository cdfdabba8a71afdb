package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/node"
)

const (
	trackerConnections = 1    // somebody looks for something in a tracker
	vocabulary         = 5000 // words that descriptions are made of
	wordsEach          = 60   // of a description
	rareEvery          = 1000 // jobs, of which one has the rare word
	scans              = 20   // of the baseline
)

// trackerRows are those of one account with many jobs.
func (s *suite) trackerRows() []row {
	there := fmt.Sprintf("1 connection, one account with %d jobs", s.size.tracked)
	searched := func(name, what, query string, like ...string) row {
		return row{
			name: name, what: fmt.Sprintf("GET /api/jobs, %s, %s, p50", what, there), unit: "ms", goal: goal{mostRatio: 0.1, mostValue: 10},
			against:  "one LIKE for each word over the data of the account's jobs, with raw SQLite on one connection, the first 50 that match from the latest on",
			measure:  func(ctx context.Context) (sample, error) { return s.readTracker(ctx, query) },
			baseline: func(ctx context.Context) (sample, error) { return s.scanTracker(ctx, like) },
		}
	}
	return []row{
		{
			name: "list", what: "GET /api/jobs, a page of 50, " + there + ", p50", unit: "ms", goal: goal{mostValue: 10},
			measure: func(ctx context.Context) (sample, error) { return s.readTracker(ctx, "") },
		},
		searched("search-rare", fmt.Sprintf("a word that one of %d jobs has", rareEvery), "?q=zeppelin", "zeppelin"),
		searched("search-none", "a word that no job has", "?q=zyzzyva", "zyzzyva"),
		searched("search-two", "a word that one of 80 has, and the rare one", "?q=w0042+zeppelin", "w0042", "zeppelin"),
		searched("search-filter", "a word that one of 80 has, of one of 500 companies", "?q=w0042&company=company+7", "w0042", `"Company 7"`),
	}
}

// tracker is a ledger of one account with many jobs of different words.
func (s *suite) tracker(ctx context.Context) (*ledgerDir, error) {
	return s.once(ctx, &s.searched, plan{accounts: 1, jobsEach: s.size.tracked, limit: -1, blocks: 1, posting: variedPosting})
}

// variedPosting is a posting of the bench with words of its own.
func variedPosting(serial int) events.Job {
	job := posting(serial)
	random := rand.New(rand.NewPCG(uint64(serial), 0))
	words := make([]string, wordsEach)
	for i := range words {
		words[i] = fmt.Sprintf("w%04d", random.IntN(vocabulary))
	}
	if serial%rareEvery == 0 {
		words[0] = "Zeppelin"
	}
	job.Company, job.Description = fmt.Sprintf("Company %d", serial%500), strings.Join(words, " ")
	return job
}

func (s *suite) readTracker(ctx context.Context, query string) (result sample, err error) {
	d, err := s.tracker(ctx)
	if err != nil {
		return result, err
	}
	err = s.withService(ctx, d.path, func(running *service) error {
		l := load{
			addr: running.addr, connections: trackerConnections, warmup: s.size.warmup, window: s.size.window,
			form: newForm("GET /api/jobs"+query+" HTTP/1.1\r\n", ""), tokens: d.tokens(), status: 200,
		}
		r, err := l.run(ctx)
		result = r.sample
		result.value = float64(result.p50) / float64(time.Millisecond)
		return err
	})
	return result, err
}

// scanTracker looks for words in every job, as who has no index would. The value is the median in milliseconds.
func (s *suite) scanTracker(ctx context.Context, words []string) (result sample, err error) {
	d, err := s.tracker(ctx)
	if err != nil {
		return result, err
	}
	db, err := openSQLite(filepath.Join(d.path, node.ProjectionFile), "?mode=ro&_query_only=1&_cache_size=-4096")
	if err != nil {
		return result, err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	query, args := "SELECT sequence, data FROM decisions WHERE partition = 0 AND type = ?", []any{events.TypeJobCaptured}
	for _, word := range words {
		query, args = query+" AND data LIKE ?", append(args, "%"+word+"%")
	}
	var took []time.Duration
	for range scans {
		began := time.Now()
		rows, err := db.QueryContext(ctx, query+" ORDER BY sequence DESC LIMIT 50", args...)
		if err != nil {
			return result, err
		}
		for rows.Next() {
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return result, err
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	result.p50, result.p99 = took[len(took)/2], took[len(took)-1]
	result.value = float64(result.p50) / float64(time.Millisecond)
	return result, nil
}
