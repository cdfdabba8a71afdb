package events

import "strconv"

// Stream is one of the two streams of a partition.
type Stream string

// The pair: what was asked, and what was decided on it under the same number.
const (
	Requests  Stream = "REQUESTS"
	Decisions Stream = "DECISIONS"
)

// The first tokens of the subjects. Decisions on jobs and decisions on accounts stand apart, so that a consumer can
// ask for either.
const (
	requestsSubject = "requests"
	jobsSubject     = "jobs"
	accountsSubject = "accounts"
)

// Name returns the name of the stream of a partition, such as REQUESTS_0.
func (s Stream) Name(partition int) string { return string(s) + "_" + strconv.Itoa(partition) }

// Subjects returns the subjects that the stream of a partition keeps.
func (s Stream) Subjects(partition int) []string {
	rest := "." + strconv.Itoa(partition) + ".>"
	if s == Requests {
		return []string{requestsSubject + rest}
	}
	return []string{jobsSubject + rest, accountsSubject + rest}
}

// Heads are the last sequences of the pair of a partition. Decisions never exceeds Requests in a sound ledger.
type Heads struct {
	Requests  uint64
	Decisions uint64
}
