package events

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Message is one message of a stream as it is on the wire, in no client library's type.
type Message struct {
	Subject  string
	Header   map[string][]string // keys in lower case
	Data     []byte
	Sequence uint64 // its number in the stream; 0 until it is appended
}

// The CloudEvents attributes of requests and decisions. Sequence, Account, RequestID, RequestDigest and Digest are
// extensions; only decisions carry them.
const (
	headerSpecVersion   = "ce-specversion"
	headerID            = "ce-id"
	headerSource        = "ce-source"
	headerType          = "ce-type"
	headerTime          = "ce-time"
	headerSubject       = "ce-subject"
	headerContentType   = "ce-datacontenttype"
	headerSequence      = "ce-sequence"
	headerAccount       = "ce-account"
	headerRequestID     = "ce-requestid"
	headerRequestDigest = "ce-requestdigest"
	headerDigest        = "ce-digest"
)

// sourceDecisions is the CloudEvents source of decisions, and of what follows from them.
const sourceDecisions = "/jobtally/decisions"

// Message returns the wire form of the request for a ledger of so many partitions. The subject is
// requests.<partition>.<account>.<kind>.
func (r *Request) Message(partitions int) Message {
	m := Message{
		Subject: subject(requestsSubject, r.Partition(partitions), subjectAccount(r.Account), r.Body.requestKind()),
		Header: map[string][]string{
			headerSpecVersion: {"1.0"},
			headerID:          {escape(r.ID)},
			headerSource:      {r.source()},
			headerType:        {r.Body.requestType()},
			headerTime:        {formatTime(r.Time)},
			headerSubject:     {subjectAccount(r.Account)},
			headerContentType: {"application/json"},
		},
		Data: encode(r.Body),
	}
	m.setTraceparent(r.Traceparent)
	return m
}

func (r *Request) source() string {
	if r.Account == "" {
		return "/jobtally/projector"
	}
	return "/jobtally/accounts/" + r.Account
}

// Partition returns the partition of the account, in a ledger of so many. A request of no account is asked of the
// partition in its Position.
func (r *Request) Partition(partitions int) int {
	if r.Account == "" {
		return r.Position.Partition
	}
	return PartitionOf(r.Account, partitions)
}

// Void says whether a message stands for one that was erased with its account: a number and nothing else.
func (m *Message) Void() bool { return m.Subject == "" }

// DecodeRequest reads message m of REQUESTS_p of a ledger of so many partitions. Bytes that cannot be read give a
// request whose body is Malformed, for a decision is due to them too. The only error is ErrUnknownType.
func DecodeRequest(m Message, partition, partitions int) (Request, error) {
	r := Request{
		Position: Position{Partition: partition, Sequence: m.Sequence},
		Digest:   requestDigest(m),

		Traceparent: traceparentOf(m),
	}
	if m.Void() {
		return Request{Position: r.Position, Body: &Erased{}}, nil
	}
	kind, err := r.decode(m, partitions)
	if errors.Is(err, ErrUnknownType) {
		return r, err
	}
	if err != nil {
		r.Body = &Malformed{Kind: strings.ToValidUTF8(kind, "\ufffd"), Reason: err.Error()}
	}
	return r, nil
}

// decode reads what it can, up to the first thing that it cannot: what r then holds is fit to be written in a decision.
// The texts of its errors go into the decision's digest. So they are all of this package, and never change: those of
// the standard library differ from one version to the next.
func (r *Request) decode(m Message, partitions int) (string, error) {
	tokens := strings.Split(m.Subject, ".")
	if len(tokens) != 4 {
		return "", errors.New("the subject is not requests.<partition>.<account>.<kind>")
	}
	kind := tokens[3]
	if err := r.decodeAccount(tokens[2], kind, partitions); err != nil {
		return kind, err
	}
	id, err := unescape(header(m, headerID))
	if err != nil {
		return kind, fmt.Errorf("ce-id: %w", err)
	}
	if err := validRequestID(id); err != nil {
		return kind, err
	}
	r.ID = id
	if r.Time, err = parseTime(header(m, headerTime)); err != nil {
		return kind, fmt.Errorf("ce-time %w", err)
	}
	return kind, r.decodeBody(header(m, headerType), kind, m.Data)
}

func (r *Request) decodeAccount(account, kind string, partitions int) error {
	if account == noAccount && kind == kindMonthClose {
		return nil
	}
	if ValidAccount(account) != nil {
		return errors.New("the subject names no account")
	}
	if want := PartitionOf(account, partitions); want != r.Position.Partition {
		return fmt.Errorf("account %s belongs to partition %d", account, want)
	}
	r.Account = account
	if kind == kindMonthClose {
		return errors.New("a month is closed for no account")
	}
	return nil
}

func (r *Request) decodeBody(ceType, kind string, data []byte) error {
	if ceType == "" {
		return errors.New("ce-type is missing")
	}
	body := newRequestBody(ceType)
	if body == nil {
		return fmt.Errorf("%w %q", ErrUnknownType, ceType)
	}
	if body.requestKind() != kind {
		return fmt.Errorf("%s stands under the subject of another kind", ceType)
	}
	if json.Unmarshal(data, body) != nil {
		return fmt.Errorf("the data is not that of a %s", ceType)
	}
	if err := validBody(body); err != nil {
		return err
	}
	r.Body = body
	return nil
}

// validRequestID refuses a request id that could not be an index key everywhere.
func validRequestID(id string) error {
	if id == "" || len(id) > MaxRequestIDLength {
		return fmt.Errorf("a request id has 1 to %d bytes", MaxRequestIDLength)
	}
	for _, c := range []byte(id) {
		if c < ' ' || c == 0x7f {
			return errors.New("a request id has no control characters")
		}
	}
	return nil
}

// validBody refuses what Decide could not make sense of. The bounds on a job's fields are the edge's business.
func validBody(body RequestBody) error {
	switch b := body.(type) {
	case *JobCaptureRequested:
		if b.CanonicalURL == "" || b.Month == "" || b.PayloadHash == (Digest{}) {
			return errors.New("a capture needs canonical_url, month and payload_hash")
		}
	case *JobUpdateRequested:
		return b.valid()
	case *JobDeleteRequested:
		if b.JobID == "" || b.IfVersion < 0 {
			return errors.New("a job needs job_id, and a version that is positive")
		}
	case *AccountOpenRequested:
		return validPlan(b.Plan, b.Limit)
	case *PlanChangeRequested:
		return validPlan(b.Plan, b.Limit)
	case *TokenIssueRequested:
		if b.TokenID == "" || b.SecretHash == (Digest{}) {
			return errors.New("a token needs token_id and secret_hash")
		}
		if year := b.ExpiresAt.UTC().Year(); year < 0 || year > 9999 {
			return errors.New("a token expires in one of the years 0 to 9999 in UTC")
		}
	case *TokenRevokeRequested:
		if b.TokenID == "" {
			return errors.New("a token needs token_id")
		}
	case *MonthCloseRequested:
		if b.Month == "" {
			return errors.New("a month close needs month")
		}
	}
	return nil
}

func (b *JobUpdateRequested) valid() error {
	if b.JobID == "" || b.IfVersion < 0 {
		return errors.New("a job needs job_id, and a version that is positive")
	}
	if len(b.Changes) == 0 {
		return errors.New("an update needs changes")
	}
	for name, text := range b.Changes {
		if !slices.Contains(EditableFields(), name) {
			return errors.New("an update changes what cannot be changed")
		}
		if text == "" && (name == "title" || name == "company" || name == "status") {
			return errors.New("title, company and status cannot be removed")
		}
	}
	return nil
}

func validPlan(plan string, limit int64) error {
	if plan == "" {
		return errors.New("a plan needs a name")
	}
	if limit < -1 {
		return fmt.Errorf("limit %d: a limit is a number of captures, or -1 for unlimited", limit)
	}
	return nil
}

// requestDigest digests what was asked, read or not.
func requestDigest(m Message) Digest {
	return Hash([]byte(m.Subject), []byte(header(m, headerID)), []byte(header(m, headerType)),
		[]byte(header(m, headerTime)), m.Data)
}

// Message returns the wire form of a sealed decision. The subject is jobs.<partition>.<account>.<outcome> for the
// decision on a capture, and accounts.… for any other.
func (d *Decision) Message() Message {
	m := Message{
		Subject: subject(d.root(), d.Position.Partition, subjectAccount(d.Account), d.Body.outcome()),
		Header: map[string][]string{
			headerSpecVersion:   {"1.0"},
			headerID:            {d.Position.String()},
			headerSource:        {sourceDecisions},
			headerType:          {d.Body.decisionType()},
			headerTime:          {formatTime(d.Time)},
			headerContentType:   {"application/json"},
			headerSequence:      {fmt.Sprintf("%020d", d.Position.Sequence)},
			headerAccount:       {d.Account},
			headerRequestID:     {escape(d.RequestID)},
			headerRequestDigest: {d.RequestDigest.String()},
			headerDigest:        {d.Digest.String()},
		},
		Data:     d.Data,
		Sequence: d.Position.Sequence,
	}
	if about := d.Body.about(); about != "" {
		m.Header[headerSubject] = []string{escape(about)}
	}
	m.setTraceparent(d.Traceparent)
	return m
}

func (d *Decision) root() string {
	switch b := d.Body.(type) {
	case *JobCaptured, *JobCaptureDuplicated, *JobCaptureRejected, *JobCaptureRepeated, *JobUpdated, *JobDeleted:
		return jobsSubject
	case *RequestRefused:
		if strings.HasPrefix(b.Kind, "job_") {
			return jobsSubject
		}
	}
	return accountsSubject
}

// noAccount stands in a subject where there is no account: none is called so.
const noAccount = "~"

// subjectAccount is the account, or ~ for a request of none, or that names none of this partition.
func subjectAccount(account string) string {
	if account == "" {
		return noAccount
	}
	return account
}

// DecodeDecision reads message m of DECISIONS_p. The error is ErrUnknownType, or tells what cannot be read: unlike
// a request a decision is never malformed by right.
func DecodeDecision(m Message, partition int) (Decision, error) {
	d := Decision{Position: Position{Partition: partition, Sequence: m.Sequence}, Data: m.Data, Traceparent: traceparentOf(m)}
	if m.Void() {
		d.Body = &Erased{}
		return d, nil
	}
	if id := header(m, headerID); id != d.Position.String() {
		return d, fmt.Errorf("decision %s: its ce-id is %q", d.Position, id)
	}
	if err := d.decode(m); err != nil {
		return d, fmt.Errorf("decision %s: %w", d.Position, err)
	}
	return d, nil
}

func (d *Decision) decode(m Message) (err error) {
	d.Account = header(m, headerAccount)
	if d.RequestID, err = unescape(header(m, headerRequestID)); err != nil {
		return fmt.Errorf("ce-requestid: %w", err)
	}
	if d.Time, err = parseTime(header(m, headerTime)); err != nil {
		return fmt.Errorf("ce-time %w", err)
	}
	if d.RequestDigest, err = ParseDigest(header(m, headerRequestDigest)); err != nil {
		return fmt.Errorf("ce-requestdigest: %w", err)
	}
	if d.Digest, err = ParseDigest(header(m, headerDigest)); err != nil {
		return fmt.Errorf("ce-digest: %w", err)
	}
	d.Body, err = DecodeBody(header(m, headerType), m.Data)
	return err
}

func subject(root string, partition int, account, last string) string {
	return root + "." + strconv.Itoa(partition) + "." + account + "." + last
}

// header returns the first value of a header, or nothing.
func header(m Message, key string) string {
	if values := m.Header[key]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// encode writes the JSON of a body: compact, without the escaping that only HTML needs.
func encode(body any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(body); err != nil {
		panic(fmt.Sprintf("events: a body that JSON cannot hold: %v", err)) // every body is made of strings and numbers
	}
	return bytes.TrimRight(b.Bytes(), "\n")
}

func formatTime(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

var errTime = errors.New("is not a time of RFC 3339, of the years 0 to 9999 in UTC")

// parseTime reads what formatTime writes. A year that formatTime could not write in four digits is refused: an offset
// can lead there.
func parseTime(s string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if t = t.UTC(); err != nil || t.Year() < 0 || t.Year() > 9999 {
		return time.Time{}, errTime
	}
	return t, nil
}
