package main

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

var kills = flag.Int("kills", 5, "how often TestKill9LosesNothingAcknowledged kills the service")

const (
	killClients   = 16
	acknowledged  = 300                    // at most so many answers come before a kill
	killJitter    = 5 * time.Millisecond   // and at most so much time after the last of them
	startUpToKill = 250 * time.Millisecond // a start takes about as long
)

// tracker is one of the clients that capture while the service is killed. It remembers all that it sent and was told.
type tracker struct {
	account, token string
	name           string
	random         *rand.Rand
	sent           []*sentCapture
	checked        int // so many of them are
}

// sentCapture is one capture, and the first answer to it: none when the service died before it.
type sentCapture struct {
	key, url string
	answer   *reply
}

// TestKill9LosesNothingAcknowledged kills the service under load, again and again, on one data directory. After each
// kill everything that was acknowledged is there, once, and proven by its receipt.
func TestKill9LosesNothingAcknowledged(t *testing.T) {
	t.Parallel()
	data, seed := t.TempDir(), rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := startBinary(t, data, "--plans", "free=-1")
	trackers := newTrackers(t, s, seed)
	for range *kills {
		sent := sum(trackers)
		s.killUnderLoad(t, trackers, 1+random.IntN(acknowledged), time.Duration(random.Int64N(int64(killJitter))))
		if random.IntN(3) == 0 {
			killStart(t, data, time.Duration(random.Int64N(int64(startUpToKill))))
		}
		s = startBinary(t, data)
		unanswered := s.check(t, trackers)
		t.Logf("%d captures, %d of them without an answer when the service was killed", sum(trackers)-sent, unanswered)
	}
	for _, c := range trackers {
		c.checked = 0
	}
	s.check(t, trackers)
	s.stop(t)
	s.checkFile(t, trackers)
}

func newTrackers(t *testing.T, s *service, seed uint64) []*tracker {
	tokens := map[string]string{"demo": s.token}
	others := []string{"second", "third"}
	for i, c := range s.accounts(t, -1, others...) {
		tokens[others[i]] = c.token
	}
	accounts := slices.Sorted(maps.Keys(tokens))
	trackers := make([]*tracker, killClients)
	for i := range trackers {
		account := accounts[i%len(accounts)]
		trackers[i] = &tracker{
			account: account, token: tokens[account], name: fmt.Sprintf("client-%d", i),
			random: rand.New(rand.NewPCG(seed, uint64(i+1))),
		}
	}
	return trackers
}

func sum(trackers []*tracker) (n int) {
	for _, c := range trackers {
		n += len(c.sent)
	}
	return n
}

// next is what the client captures next: mostly a page that nobody captured, or one that others capture too, each
// under a key of its own; now and then it sends an earlier capture once more.
func (c *tracker) next() *sentCapture {
	n := len(c.sent)
	draw := c.random.IntN(10)
	if draw == 0 && n > 0 {
		return c.sent[c.random.IntN(n)]
	}
	url := fmt.Sprintf("https://jobs.example.com/%s/%d", c.name, n)
	if draw < 4 {
		url = fmt.Sprintf("https://jobs.example.com/shared/%d?utm_source=%s", c.random.IntN(10*(n+1)), c.name)
	}
	next := &sentCapture{key: fmt.Sprintf("%s-%d", c.name, n), url: url}
	c.sent = append(c.sent, next)
	return next
}

// nextOnes is what the client captures next in one batch.
func (c *tracker) nextOnes() (captures []*sentCapture) {
	for range killBatch {
		captures = append(captures, c.next())
	}
	return captures
}

// send sends a capture. Whatever is answered must be the first answer.
func (s *service) send(t *testing.T, c *tracker, capture *sentCapture) error {
	as := client{s.url, c.token, s.http}
	r, err := as.call(http.MethodPost, "/api/jobs", strings.NewReader(jobAt(capture.url)), "Idempotency-Key: "+capture.key)
	if err != nil {
		return err
	}
	if capture.answer != nil && capture.answer.body != "" {
		r.wantsSame(t, *capture.answer)
		return nil
	}
	s.answered(t, capture, r)
	return nil
}

// killBatch is how many captures a client sends at once that sends a batch.
const killBatch = 12

// sendBatch sends captures as one batch, under the keys that they have alone.
func (s *service) sendBatch(t *testing.T, c *tracker, captures []*sentCapture) error {
	items := make([]string, len(captures))
	for i, capture := range captures {
		items[i] = strings.Replace(jobAt(capture.url), "{", fmt.Sprintf(`{"idempotency_key":%q,`, capture.key), 1)
	}
	as := client{s.url, c.token, s.http}
	r, err := as.call(http.MethodPost, "/api/jobs/batch", strings.NewReader(`{"jobs":[`+strings.Join(items, ",")+`]}`))
	if err != nil {
		return err
	}
	if r.wants(t, http.StatusOK); len(r.Results) != len(captures) {
		t.Errorf("%d results for %d captures", len(r.Results), len(captures))
		return nil
	}
	for i, result := range r.Results {
		told := reply{status: result.Status, form: form{Outcome: result.Outcome, Job: result.Job, Receipt: result.Receipt}}
		s.answered(t, captures[i], told)
	}
	return nil
}

// answered takes in the answer to a capture. That of a batch has no body of its own: the next one to it does.
func (s *service) answered(t *testing.T, capture *sentCapture, r reply) {
	if first := capture.answer; first != nil && (r.status != first.status || r.Outcome != first.Outcome || r.Job != first.Job || r.Receipt != first.Receipt) {
		t.Errorf("%s: answered %d %+v, and first %d %+v", capture.url, r.status, r.form, first.status, first.form)
		return
	}
	if r.status != http.StatusCreated && r.status != http.StatusOK {
		t.Errorf("%s: answered %d %s", capture.url, r.status, r.body)
	}
	r.wantsReceipt(t)
	if capture.answer == nil || capture.answer.body == "" {
		capture.answer = &r
	}
}

// killUnderLoad lets all clients capture until so many answers came, and kills the service so much later.
func (s *service) killUnderLoad(t *testing.T, trackers []*tracker, answers int, later time.Duration) {
	t.Helper()
	var missing atomic.Int64
	missing.Store(int64(answers))
	together(len(trackers), func(i int) any {
		for c := trackers[i]; ; {
			var err error
			if c.random.IntN(killBatch) == 0 {
				err = s.sendBatch(t, c, c.nextOnes())
			} else {
				err = s.send(t, c, c.next())
			}
			if err != nil {
				return nil // the service is dead
			}
			if missing.Add(-1) == 0 {
				time.AfterFunc(later, func() { s.process.Kill() })
			}
		}
	})
	if s.kill(t); missing.Load() > 0 {
		t.Error("the clients gave up before")
	}
}

// killStart kills a start.
func killStart(t *testing.T, data string, after time.Duration) {
	t.Helper()
	s := launch(t, data, command(apiBinary, serviceFlags(data)...))
	select {
	case <-s.ended: // kill complains
	case <-time.After(after):
	}
	s.kill(t)
}

// check checks the captures that are not checked yet, and the count of each account. Captures without an answer are
// sent again before, and get one: unanswered is their number.
func (s *service) check(t *testing.T, trackers []*tracker) (unanswered int) {
	t.Helper()
	for _, n := range together(len(trackers), func(i int) (n int) {
		c := trackers[i]
		for ; c.checked < len(c.sent); c.checked++ {
			capture := c.sent[c.checked]
			if capture.answer == nil {
				n++
			}
			if err := s.send(t, c, capture); err != nil {
				t.Error(err)
				return n
			}
			s.checkOne(t, c, capture)
		}
		return n
	}) {
		unanswered += n
	}
	if t.Failed() {
		t.FailNow()
	}
	for account, urls := range jobsByURL(t, trackers) {
		as := client{s.url, tokenOf(trackers, account), s.http}
		as.wantsQuota(t, quota{int64(len(urls)), -1, -1, resetDate()})
	}
	return unanswered
}

// checkOne checks that the job is there, and that the receipt proves the capture.
func (s *service) checkOne(t *testing.T, c *tracker, capture *sentCapture) {
	t.Helper()
	as, first := client{s.url, c.token, s.http}, capture.answer
	proof := as.get(t, "/api/jobs/captures/"+first.Receipt.Position).wants(t, http.StatusOK)
	if proof.Receipt != first.Receipt || proof.Job != first.Job || proof.Outcome != first.Outcome {
		t.Errorf("told as %s\nfirst it was %s", proof.body, first.body)
	}
	if job := as.get(t, "/api/jobs/"+first.Job.ID).wants(t, http.StatusOK); !strings.Contains(job.body, first.Job.ID) {
		t.Errorf("job %s is %s", first.Job.ID, job.body)
	}
}

// jobsByURL returns the job of each page that an account sent, and checks that it was captured once: that one answer
// is 201, and all others name the same job.
func jobsByURL(t *testing.T, trackers []*tracker) map[string]map[string]string {
	t.Helper()
	jobs, created := map[string]map[string]string{}, map[string]int{}
	for _, c := range trackers {
		if jobs[c.account] == nil {
			jobs[c.account] = map[string]string{}
		}
		for _, capture := range c.sent {
			page, _, _ := strings.Cut(capture.url, "?")
			if job, known := jobs[c.account][page]; known && job != capture.answer.Job.ID {
				t.Errorf("account %s: %s is job %s and job %s", c.account, page, job, capture.answer.Job.ID)
			}
			jobs[c.account][page] = capture.answer.Job.ID
			if capture.answer.status == http.StatusCreated {
				created[c.account+" "+page]++
			}
		}
	}
	for account, pages := range jobs {
		for page := range pages {
			if n := created[account+" "+page]; n != 1 {
				t.Errorf("account %s: %s was answered 201 %d times", account, page, n)
			}
		}
	}
	return jobs
}

func tokenOf(trackers []*tracker, account string) string {
	return trackers[slices.IndexFunc(trackers, func(c *tracker) bool { return c.account == account })].token
}

// checkFile asks the SQLite file itself, past everything that wrote it.
func (s *service) checkFile(t *testing.T, trackers []*tracker) {
	t.Helper()
	db := s.readProjection(t)
	for what, query := range map[string]string{
		"months whose count is not that of their jobs": `SELECT count(*) FROM months m WHERE used <>
			(SELECT count(*) FROM jobs j WHERE j.account = m.account AND j.month = m.month)`,
		"jobs in no month": `SELECT count(*) FROM jobs j WHERE NOT EXISTS
			(SELECT 1 FROM months m WHERE m.account = j.account AND m.month = j.month)`,
		"jobs without the decision that captured them": `SELECT count(*) FROM jobs j WHERE NOT EXISTS
			(SELECT 1 FROM decisions d WHERE d.partition = j.partition AND d.sequence = j.sequence
			AND d.account = j.account AND d.type LIKE '%.job.captured.%' AND d.data LIKE '%' || j.id || '%')`,
		"positions missing in the chain": `SELECT p.sequence - count(*) + abs(p.sequence - max(d.sequence)) + min(d.sequence) - 1
			FROM partitions p JOIN decisions d USING (partition)`,
	} {
		if n := number(t, db, query); n != 0 {
			t.Errorf("%s: %d", what, n)
		}
	}
	for account, urls := range jobsByURL(t, trackers) {
		if n := number(t, db, "SELECT count(*) FROM jobs WHERE account = ?", account); n != int64(len(urls)) {
			t.Errorf("account %s has %d jobs in the file, want %d", account, n, len(urls))
		}
	}
}
