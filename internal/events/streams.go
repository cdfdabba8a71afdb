package events

import (
	"slices"
	"strconv"
	"strings"
)

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

// The last tokens of the subjects of months and erasures: these are looked for among all others.
const (
	kindMonthClose       = "month_close"
	kindAccountErase     = "account_erase"
	kindAccountOpen      = "account_open"
	outcomeMonthArchived = "month_archived"
	outcomeErased        = "erased"
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

// SubjectOf returns the subject of all that is of an account in the stream of a partition. That of no account is of the empty name.
// It is one for both kinds of decisions, for a server reads by several filters many times slower than by one.
func (s Stream) SubjectOf(account string, partition int) string {
	root := "*"
	if s == Requests {
		root = requestsSubject
	}
	return subject(root, partition, subjectAccount(account), "*")
}

// ClosesSubject returns the subject of the requests to close a month of a partition.
func ClosesSubject(partition int) string {
	return subject(requestsSubject, partition, noAccount, kindMonthClose)
}

// ArchivesSubject returns the subject of the archived months of a partition.
func ArchivesSubject(partition int) string {
	return subject(accountsSubject, partition, noAccount, outcomeMonthArchived)
}

// OpeningsSubject returns the subject of the requests to open an account.
func OpeningsSubject(account string, partition int) string {
	return subject(requestsSubject, partition, account, kindAccountOpen)
}

// AccountSubject returns the subject of the decisions on an account, its plan and its tokens; of those on all accounts of
// the partition where it is *.
func AccountSubject(account string, partition int) string {
	return subject(accountsSubject, partition, account, "*")
}

// JobsSubject returns the subject of the decisions on an account's jobs: of those that are events with a position.
func JobsSubject(account string, partition int) string {
	return subject(jobsSubject, partition, account, "*")
}

// OpenedSubject returns the subject of the decision that opened an account.
func OpenedSubject(account string, partition int) string {
	return subject(accountsSubject, partition, account, OutcomeOf(&AccountOpened{}))
}

// ErasedSubject returns the subject of the decisions that erased an account.
func ErasedSubject(account string, partition int) string {
	return subject(accountsSubject, partition, account, outcomeErased)
}

// ErasuresSubject returns the subject of the erasures in a partition.
func ErasuresSubject(partition int) string {
	return subject(accountsSubject, partition, "*", outcomeErased)
}

// Remains says whether a message of an account, request or decision, outlives the account's erasure: those of erasures
// do, for they say what the missing numbers are. A request to erase that cannot be read is refused, and goes.
func (m *Message) Remains() bool {
	if strings.HasSuffix(m.Subject, "."+kindAccountErase) {
		_, err := new(Request).decode(*m, 1)
		return err == nil
	}
	return strings.HasSuffix(m.Subject, "."+outcomeErased)
}

// Heads are the last sequences of the pair of a partition. Decisions never exceeds Requests in a sound ledger.
type Heads struct {
	Requests  uint64
	Decisions uint64
}

// Matches says whether a subject is one of those that a filter means, in which * stands for any one token.
func Matches(subject, filter string) bool {
	tokens, wanted := strings.Split(subject, "."), strings.Split(filter, ".")
	return slices.EqualFunc(tokens, wanted, func(token, want string) bool { return want == "*" || token == want })
}
