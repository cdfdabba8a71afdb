package projections

import (
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// QueryWords returns the words that a text asks for, each once.
func QueryWords(text string) (words []string) {
	eachWord(text, func(word string) {
		if !slices.Contains(words, word) {
			words = append(words, word)
		}
	})
	return words
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

// search reads a page of the jobs that have all words of the text. The word index says which jobs may: what it says of a job
// that was updated since is outdated. So each job of the page is looked at before it counts, and the loose ones, of which
// there are fewer than chunkSize, are looked at anyway.
func (l *listing) search() error {
	words := QueryWords(l.Text)
	if len(words) == 0 {
		return nil
	}
	candidates, err := l.indexed(words)
	if err != nil {
		return err
	}
	if candidates, err = l.withLoose(candidates, words); err != nil {
		return err
	}
	if l.filtered() {
		if candidates, err = l.restricted(candidates); err != nil {
			return err
		}
	}
	if candidates, err = l.ordered(candidates); err != nil {
		return err
	}
	for group := range slices.Chunk(candidates, l.Limit+1) {
		if err := l.collect(group, words); err != nil || len(l.found) > l.Limit {
			return err
		}
	}
	return nil
}

// indexed returns the sequences of the jobs that have all words by the word index, in order.
func (l *listing) indexed(words []string) (sequences []uint64, err error) {
	matching := map[int64]*placed{}
	for i, word := range words {
		of, err := l.placesOf(word)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			matching = of
			continue
		}
		for chunk, places := range matching {
			if other := of[chunk]; other != nil {
				places.intersect(other)
			} else {
				delete(matching, chunk)
			}
		}
	}
	rows, err := l.tx.Stmt(l.stmts.chunks).Query(l.account)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var chunk int64
		var jobs sql.RawBytes
		if err := rows.Scan(&chunk, &jobs); err != nil {
			return err
		}
		if places := matching[chunk]; places != nil {
			sequences, err = appendPlaced(sequences, jobs, places)
		}
		return err
	})
	slices.Sort(sequences)
	return slices.Compact(sequences), err
}

// placesOf returns where in each chunk there are words that begin with one.
func (l *listing) placesOf(word string) (map[int64]*placed, error) {
	of := map[int64]*placed{}
	rows, err := l.tx.Stmt(l.stmts.words).Query(l.account, word)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var chunk int64
		var block sql.RawBytes
		if err := rows.Scan(&chunk, &block); err != nil {
			return err
		}
		places := of[chunk]
		if places == nil {
			places = &placed{}
			of[chunk] = places
		}
		return placesIn(block, word, places.add)
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

// withLoose returns the sequences with those of the loose jobs that have all words, and without the others of them.
func (l *listing) withLoose(sequences []uint64, words []string) ([]uint64, error) {
	matching := map[uint64]bool{}
	rows, err := l.tx.Stmt(l.stmts.loose).Query(l.account)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var sequence uint64
		var data sql.RawBytes
		if err := rows.Scan(&sequence, &data); err != nil {
			return err
		}
		matching[sequence], err = hasWords(data, words)
		return err
	})
	if err != nil {
		return nil, err
	}
	sequences = slices.DeleteFunc(sequences, func(sequence uint64) bool { _, loose := matching[sequence]; return loose })
	for sequence, has := range matching {
		if has {
			sequences = append(sequences, sequence)
		}
	}
	slices.Sort(sequences)
	return sequences, nil
}

// hasWords says whether the content that a decision gives a job has a word that begins with each of some.
func hasWords(data []byte, words []string) (bool, error) {
	missing := slices.Clone(words)
	err := wordsIn(data, func(word string) {
		missing = slices.DeleteFunc(missing, func(wanted string) bool { return strings.HasPrefix(word, wanted) })
	})
	return len(missing) == 0, err
}

// restricted returns those of the sequences, which are in order, that the filters let through.
func (l *listing) restricted(sequences []uint64) (kept []uint64, err error) {
	args := append([]any{l.account, nil}, l.filters()...)
	rows, err := l.tx.Stmt(l.stmts.filtered).Query(args...)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var sequence uint64
		if err := rows.Scan(&sequence); err != nil {
			return err
		}
		for len(sequences) > 0 && sequences[0] < sequence {
			sequences = sequences[1:]
		}
		if len(sequences) > 0 && sequences[0] == sequence {
			kept = append(kept, sequence)
		}
		return nil
	})
	return kept, err
}

// ordered returns the sequences in the order of the page, from where it begins.
func (l *listing) ordered(sequences []uint64) ([]uint64, error) {
	changed := map[uint64]uint64{} // where it is not the sequence itself
	if l.Updated {
		rows, err := l.tx.Stmt(l.stmts.edits).Query(l.account)
		err = scanAll(rows, err, func(rows *sql.Rows) error {
			var sequence, at uint64
			err := rows.Scan(&sequence, &at)
			changed[sequence] = at
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	at := func(sequence uint64) uint64 { return max(sequence, changed[sequence]) }
	sequences = slices.DeleteFunc(sequences, func(sequence uint64) bool { return at(sequence) >= l.Before })
	slices.SortFunc(sequences, func(a, b uint64) int { return int(int64(at(b)) - int64(at(a))) })
	return sequences, nil
}

// collect takes the jobs of some sequences that have all words.
func (l *listing) collect(sequences []uint64, words []string) error {
	list, err := json.Marshal(sequences)
	if err != nil {
		return err
	}
	rows, err := l.tx.Stmt(l.stmts.page).Query(l.account, string(list))
	return scanAll(rows, err, func(rows *sql.Rows) error {
		job, data, err := scanJobData(rows.Scan)
		if err != nil {
			return err
		}
		if has, err := hasWords(data, words); !has || err != nil {
			return err
		}
		l.found = append(l.found, job)
		return nil
	})
}
