package projections

import (
	"bytes"
	"cmp"
	"database/sql"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"jobtally/internal/events"
)

const (
	// fewChunks and manyChunks are how many chunks of the word index are read at once: few at first, for common words fill a
	// page with these, and then more and more.
	fewChunks, manyChunks = 2, 128
	// manyProbes is how many jobs are looked up one by one for a filter. Then all jobs that pass it are read at once, and where
	// these are few, each of them is looked at instead of the word index.
	manyProbes = 1024
)

// queryWords returns the words that a text asks for, each once.
func queryWords(text string) (words []string) {
	eachWord(text, func(word string) {
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	})
	return words
}

// search is the reading of a page of the jobs that have all of some words.
type search struct {
	*listing
	words  []string
	chunk  int64            // the last that was looked at
	before uint64           // the number of the one before it: what it and those before it may have was captured and changed by then
	pool   []candidate      // that may have the words, and whose turn has not come
	probes int              // candidates that were looked up for a filter
	passed map[uint64]int64 // the jobs that pass the filter, and when they changed; nil until all were read
}

// candidate is a job that has the words by a chunk of the word index, or by its content, where it is loose.
type candidate struct {
	sequence uint64
	at       uint64 // by which it is ordered
	chunk    int64
}

// chunk is one of the word index.
type chunk struct {
	number int64
	jobs   []byte
	places *placed // of the jobs that have the words
}

// placed are places in a chunk, a bit for each.
type placed [chunkSize / 64]uint64

func (p *placed) add(place byte)      { p[place/64] |= 1 << (place % 64) }
func (p *placed) has(place byte) bool { return p[place/64]&(1<<(place%64)) != 0 }

func (p *placed) intersect(other *placed) {
	for i := range p {
		p[i] &= other[i]
	}
}

// search reads a page of the jobs that have all words of the text. It goes through the word index from the last chunk to the
// first, and no further than the page needs, for a job was captured and changed before its chunk was filled. What a chunk
// says of a job that was updated since is outdated: so each job of the page is looked at before it counts.
func (l *listing) search() error {
	s := search{listing: l, words: queryWords(l.Text), chunk: math.MaxInt64}
	if len(s.words) == 0 {
		return nil
	}
	if err := s.addLoose(); err != nil {
		return err
	}
	for n := fewChunks; ; n = min(2*n, manyChunks) {
		chunks, err := s.readChunks(n)
		if err == nil {
			err = s.addIndexed(chunks)
		}
		if err != nil {
			return err
		}
		if err := s.collect(); err != nil || s.before == 0 || len(l.found) > l.Limit {
			return err
		}
		if s.passed != nil && len(s.passed) <= chunkSize {
			return s.collectPassed()
		}
	}
}

// readChunks reads the next chunks, up to n, and the number of the one that comes then.
func (s *search) readChunks(n int) (chunks []chunk, err error) {
	rows, err := s.tx.Stmt(s.stmts.chunks).Query(s.account, s.chunk, n+1)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var c chunk
		err := rows.Scan(&c.number, &c.jobs)
		chunks = append(chunks, c)
		return err
	})
	if s.before = 0; len(chunks) > n {
		s.before = uint64(chunks[n].number)
		chunks = chunks[:n]
		s.chunk = chunks[n-1].number
	}
	return chunks, err
}

// addIndexed adds the jobs that have all words by some chunks, the last of them first.
func (s *search) addIndexed(chunks []chunk) error {
	for i, word := range s.words {
		if len(chunks) == 0 {
			return nil
		}
		of, err := s.placesOf(word, chunks[len(chunks)-1].number, chunks[0].number)
		if err != nil {
			return err
		}
		chunks = slices.DeleteFunc(chunks, func(c chunk) bool { return of[c.number] == nil })
		for k := range chunks {
			if c := &chunks[k]; i == 0 {
				c.places = of[c.number]
			} else {
				c.places.intersect(of[c.number])
			}
		}
	}
	var candidates []candidate
	for _, c := range chunks {
		sequences, err := appendPlaced(nil, c.jobs, c.places)
		if err != nil {
			return err
		}
		for _, sequence := range sequences {
			if s.Updated || sequence < s.Before {
				candidates = append(candidates, candidate{sequence, sequence, c.number})
			}
		}
	}
	return s.add(candidates)
}

// placesOf returns where in some chunks there are words that begin with one.
func (s *search) placesOf(word string, first, last int64) (map[int64]*placed, error) {
	of := map[int64]*placed{}
	rows, err := s.tx.Stmt(s.stmts.words).Query(s.account, word, first, last)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var chunk int64
		var block sql.RawBytes
		if err := rows.Scan(&chunk, &block); err != nil {
			return err
		}
		return placesIn(block, word, func(place byte) {
			if of[chunk] == nil {
				of[chunk] = &placed{}
			}
			of[chunk].add(place)
		})
	})
	return of, err
}

// appendPlaced appends the sequences of the jobs of a chunk that are at some places.
func appendPlaced(sequences []uint64, jobs []byte, places *placed) ([]uint64, error) {
	sequence := uint64(0)
	for place := 0; len(jobs) > 0; place++ {
		step, size := binary.Uvarint(jobs)
		if size <= 0 || place == chunkSize {
			return nil, fmt.Errorf("%w: a chunk of the word index cannot be read", ErrMismatch)
		}
		sequence, jobs = sequence+step, jobs[size:]
		if places.has(byte(place)) {
			sequences = append(sequences, sequence)
		}
	}
	return sequences, nil
}

// addLoose adds the loose jobs that may have all words: of these there are fewer than chunkSize.
func (s *search) addLoose() error {
	var candidates []candidate
	rows, err := s.tx.Stmt(s.stmts.loose).Query(s.account)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var sequence uint64
		var data sql.RawBytes
		if err := rows.Scan(&sequence, &data); err != nil {
			return err
		}
		if mayHave(data, s.words) {
			candidates = append(candidates, candidate{sequence, sequence, math.MaxInt64})
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.add(candidates)
}

// add takes those of some candidates into the pool that pass the filters and come after the page before. Where the order is
// by change, the ones that changed since their chunk was filled are left out: they are in a later chunk, or loose.
func (s *search) add(candidates []candidate) error {
	if s.filtered() || s.Updated {
		changed, err := s.passing(candidates)
		if err != nil {
			return err
		}
		candidates = slices.DeleteFunc(candidates, func(c candidate) bool {
			at, passes := changed[c.sequence]
			return !passes || s.Updated && at > c.chunk
		})
		for i := range candidates {
			if c := &candidates[i]; s.Updated {
				c.at = uint64(changed[c.sequence])
			}
		}
	}
	for _, c := range candidates {
		if c.at < s.Before {
			s.pool = append(s.pool, c)
		}
	}
	return nil
}

// passing returns which of the candidates pass the filters, and maybe others that do, and when each changed last.
func (s *search) passing(candidates []candidate) (map[uint64]int64, error) {
	if s.passed != nil || len(candidates) == 0 {
		return s.passed, nil
	}
	stmt, of, passing := s.stmts.passing, any(nil), map[uint64]int64{}
	if s.probes += len(candidates); s.probes > manyProbes && s.filtered() {
		stmt, s.passed = s.stmts.allPassing, passing
	} else {
		of = sequencesOf(candidates)
	}
	rows, err := s.tx.Stmt(stmt).Query(append([]any{s.account, of}, s.filters()...)...)
	return passing, scanAll(rows, err, func(rows *sql.Rows) error {
		var sequence uint64
		var changed int64
		err := rows.Scan(&sequence, &changed)
		passing[sequence] = changed
		return err
	})
}

// collectPassed takes what is left of the jobs that pass the filters into the page.
func (s *search) collectPassed() error {
	s.pool = nil
	for sequence, changed := range s.passed {
		c := candidate{sequence: sequence, at: sequence}
		if s.Updated {
			c.at = uint64(changed)
		}
		if c.at <= s.before && c.at < s.Before {
			s.pool = append(s.pool, c)
		}
	}
	s.before = 0
	return s.collect()
}

// sequencesOf are the sequences of candidates as a JSON array.
func sequencesOf(candidates []candidate) string {
	list := []byte("[")
	for i, c := range candidates {
		if i > 0 {
			list = append(list, ',')
		}
		list = fmt.Append(list, c.sequence)
	}
	return string(append(list, ']'))
}

// collect takes the candidates into the page that come before all that chunks not looked at may have.
func (s *search) collect() error {
	slices.SortFunc(s.pool, func(a, b candidate) int { return cmp.Compare(b.at, a.at) })
	s.pool = slices.CompactFunc(s.pool, func(a, b candidate) bool { return a.at == b.at })
	due := 0
	for due < len(s.pool) && s.pool[due].at > s.before {
		due++
	}
	for group := range slices.Chunk(s.pool[:due], s.Limit+1) {
		if err := s.take(group); err != nil || len(s.found) > s.Limit {
			return err
		}
	}
	s.pool = s.pool[due:]
	return nil
}

// take takes those of some jobs that have all words.
func (s *search) take(group []candidate) error {
	rows, err := s.tx.Stmt(s.stmts.page).Query(s.account, sequencesOf(group))
	return scanAll(rows, err, func(rows *sql.Rows) error {
		job, err := scanJob(rows.Scan)
		if err == nil && jobHasWords(&job.Job, s.words) {
			s.found = append(s.found, job)
		}
		return err
	})
}

// mayHave says whether the data of a decision may give a job words that begin with each of some. Where it is ASCII, each word
// of it stands there as it is, but for its case.
func mayHave(data []byte, words []string) bool {
	if slices.ContainsFunc(data, func(c byte) bool { return c >= utf8.RuneSelf }) {
		return true
	}
	lower := bytes.ToLower(data)
	return !slices.ContainsFunc(words, func(word string) bool { return !bytes.Contains(lower, []byte(word)) })
}

// jobHasWords says whether a job has a word that begins with each of some.
func jobHasWords(job *events.Job, words []string) bool {
	missing := slices.Clone(words)
	wordsIn(job, func(word string) {
		missing = slices.DeleteFunc(missing, func(wanted string) bool { return strings.HasPrefix(word, wanted) })
	})
	return len(missing) == 0
}
