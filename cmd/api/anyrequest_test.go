package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/internal/contract"
	"jobtally/internal/contracttest"
)

var (
	seed     = flag.Uint64("seed", 1, "the seed of TestAnyRequestIsAnsweredByTheContract; 0 draws one, as make fuzz does")
	requests = flag.Int("requests", 10_000, "how many requests TestAnyRequestIsAnsweredByTheContract sends")
)

// TestAnyRequestIsAnsweredByTheContract sends requests made of the contract, right and wrong ones, to the real service. Every
// one is answered in time, as the contract says: never with a 500, never with a status or a code that the operation does
// not have. What the contract allows is not called invalid, and what it does not allow is not granted.
func TestAnyRequestIsAnsweredByTheContract(t *testing.T) {
	t.Parallel()
	if *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("seed %d: repeat with -args -seed %d", *seed, *seed)
	s := start(t, t.TempDir(), time.Now, "--plans", "free=-1,pro=500")
	drivers := s.drivers(t, 16)
	const enough = 10 // faults, before it gives up
	var sent, granted, faults atomic.Int64
	together(len(drivers), func(i int) any {
		d := drivers[i]
		for n := 0; n < *requests/len(drivers) && faults.Load() < enough; n++ {
			status, err := d.drive(d.operation(n + i))
			if err != nil {
				t.Error(err)
				faults.Add(1)
			} else if status < 400 {
				granted.Add(1)
			}
			sent.Add(1)
		}
		return nil
	})
	t.Logf("%d requests, %d of them granted", sent.Load(), granted.Load())
	for _, name := range drivers[0].checker.Unexercised() {
		if strings.HasSuffix(name, " 200") || strings.HasSuffix(name, " 201") {
			t.Errorf("no request got to %s", name)
		}
	}
	s.wantsUnharmed(t)
}

// wantsUnharmed checks that the service works as ever.
func (s *service) wantsUnharmed(t *testing.T) {
	t.Helper()
	s.get(t, "/readyz").wants(t, http.StatusOK)
	s.get(t, "/api/jobs/quota").wants(t, http.StatusOK)
	for _, sign := range []string{"panic", "level=ERROR"} {
		if log := s.stderr.String(); strings.Contains(log, sign) {
			t.Errorf("the log has %s:\n%.5000s", sign, log[strings.Index(log, sign):])
		}
	}
}

// driver sends requests of its own drawing.
type driver struct {
	generator
	checker *contracttest.Checker
	url     string
	http    *http.Client
	tokens  []string // of which the first is good for everything
	issued  []string // the paths of tokens that it had issued
}

// drivers returns n of them, with an account that has no limit, one that soon reaches its own, and tokens that are not good.
func (s *service) drivers(t *testing.T, n int) []*driver {
	t.Helper()
	checker, err := contracttest.New()
	if err != nil {
		t.Fatal(err)
	}
	ops := s.admin(t)
	limited := s.accounts(t, 25, "limited")[0]
	s.operator(t, "account", "open", "victim-0")
	revoked := s.operator(t, "token", "issue", "--account", "demo")
	s.operator(t, "token", "revoke", strings.Split(revoked, "_")[1], "--account", "demo")
	reader := s.operator(t, "token", "issue", "--account", "demo", "--scope", "jobs:read")
	s.settle(t)
	tokens := []string{ops.token, s.token, limited.token, reader, revoked, unknownToken, s.token[:30], ""}
	plain := &http.Client{Timeout: patience, Transport: &http.Transport{MaxIdleConnsPerHost: n}}
	t.Cleanup(plain.CloseIdleConnections)
	drivers := make([]*driver, n)
	for i := range drivers {
		drivers[i] = &driver{
			generator: generator{Rand: rand.New(rand.NewPCG(*seed, uint64(i))), urls: 200, known: map[string][]string{
				"AccountName":    {"victim-0", "victim-1", fmt.Sprintf("victim-%d", i), "nobody"},
				"IdempotencyKey": {"k1", "k2", "k3", fmt.Sprintf("k-%d", i), `"a \"quoted\" \\ key"`},
				"WebhookURL":     {"https://hooks.invalid/", "https://hooks.invalid:8443/a?b=c", "https://\u00fcber.invalid/"},
				"EntityTags":     {`"1"`, `"2"`, `"1", "2", "3"`, "*", `W/"1"`},
				"Plan":           {"free", "pro"}, "Position": {"0-1"}, "PositionOrBeginning": {"0-0", "0-1"}, "LastEventID": {"0-0", "0-1", ""}, "JobEventType": {"jobtally.job.captured", "jobtally.job.deleted.v1,jobtally.job.updated"}, "Month": {time.Now().UTC().Format("2006-01")},
			}},
			checker: checker, url: s.url, http: plain, tokens: tokens,
		}
	}
	return drivers
}

// operation returns the n-th operation, over and over; another one in place of most that are answered with a whole document.
func (d *driver) operation(n int) *contract.Operation {
	all := d.checker.Operations
	if o := all[n%len(all)]; o.ID != "getDocs" && o.ID != "getContract" && o.ID != "getEventContract" || d.chance(10) {
		return o
	}
	return all[d.IntN(len(all))]
}

// drawn is a request that was drawn.
type drawn struct {
	method, path, query string // the path and the query as they are sent
	header              http.Header
	body                []byte
	honest              bool // made of what the contract allows, with a token that may do all
}

// drive sends one request of an operation, and checks what comes back.
func (d *driver) drive(o *contract.Operation) (status int, err error) {
	r := d.draw(o)
	x, err := d.send(r)
	if err != nil {
		return 0, fmt.Errorf("%s\nis not answered: %w", r, err)
	}
	d.learn(x)
	if err := d.judge(o, r, x); err != nil {
		return x.Status, fmt.Errorf("%s\nis answered %d %.2000s\n%w", r, x.Status, x.Body, err)
	}
	return x.Status, nil
}

func (r *drawn) String() string {
	return fmt.Sprintf("%s %s?%s\n%v\n%.2000s", r.method, r.path, r.query, r.header, r.body)
}

// draw makes a request: half of them honest, the others with one or more things wrong.
func (d *driver) draw(o *contract.Operation) *drawn {
	r := &drawn{method: o.Method, path: o.Path, header: http.Header{}, honest: d.chance(50)}
	wrong := func() bool { return !r.honest && d.chance(25) }
	d.drawParameters(o, r, wrong)
	token := d.tokens[0]
	if d.chance(30) {
		token = d.tokens[d.IntN(3)]
	}
	if wrong() {
		token = d.one(d.tokens)
	}
	if !o.Open && token != "" {
		r.header.Set("Authorization", "Bearer "+token)
	}
	d.drawBody(o, r, wrong)
	if wrong() {
		d.distort(r)
	}
	return r
}

func (d *driver) drawParameters(o *contract.Operation, r *drawn, wrong func() bool) {
	query := url.Values{}
	if o.ID == "revokeToken" && len(d.issued) > 0 && d.chance(50) {
		r.path = d.one(d.issued[max(0, len(d.issued)-5):])
	}
	for _, p := range o.Parameters {
		if !p.Required && (d.chance(75) || p.Name == "source" && d.chance(90)) { // which reads the whole ledger
			continue
		}
		values := d.texts(p.Schema)
		if wrong() {
			values = []string{d.one(strange)}
		}
		switch p.In {
		case "path":
			r.path = strings.ReplaceAll(r.path, "{"+p.Name+"}", url.PathEscape(values[0]))
		case "query":
			query[p.Name] = values
		case "header":
			r.header[http.CanonicalHeaderKey(p.Name)] = []string{headerText(values[0])}
		}
	}
	if wrong() {
		query.Add(d.one([]string{"Limit", "page", "limit", "dry_run", "", "é"}), d.one(strange))
	}
	r.query = query.Encode()
	if wrong() {
		r.query += d.one([]string{"&%zz", "&a;b=c", "&&&", "&=", "&limit=%", "&" + strings.Repeat("x=1&", 50)})
	}
}

// texts returns a value as it is written in a URL or a header; of an array each item.
func (d *driver) texts(s *contract.Schema) (texts []string) {
	array, isArray := d.value(s).([]any)
	if !isArray {
		array = []any{d.value(s)}
	}
	for _, v := range array {
		texts = append(texts, fmt.Sprint(v))
	}
	return texts
}

var noFieldValue = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]`)

// headerText returns what of a text can stand in a header: the client sends nothing else, and no space around it.
func headerText(text string) string {
	return strings.Trim(noFieldValue.ReplaceAllString(text, ""), " \t")
}

func (d *driver) drawBody(o *contract.Operation, r *drawn, wrong func() bool) {
	if len(o.Body) == 0 {
		if wrong() {
			r.body = []byte(d.one(strangeJSON))
		}
		return
	}
	form := o.Body[d.IntN(len(o.Body))]
	r.header.Set("Content-Type", form.Type)
	if form.Type == "application/x-ndjson" {
		r.body = d.lines(o, wrong)
	} else {
		value := d.value(form.Schema)
		r.body, _ = json.Marshal(value)
		if wrong() {
			r.body = d.spoil(value)
		}
	}
	if wrong() {
		r.header.Set("Content-Type", d.one([]string{"", "text/plain", "application/json; charset=latin1", "application/json;;", "*/*", "application/jsonx"}))
	}
	if wrong() && d.chance(20) {
		r.header.Set("Content-Encoding", d.one([]string{"gzip", "identity", "br, gzip"}))
	}
}

// lines returns the items of the JSON form, one a line.
func (d *driver) lines(o *contract.Operation, wrong func() bool) []byte {
	var b bytes.Buffer
	items, _ := d.array(o.Body[0].Schema.Properties()[0].Schema).([]any)
	for _, item := range items {
		text, _ := json.Marshal(item)
		if wrong() { // also what makes no line of it, or several
			text = d.spoil(item)
		}
		fmt.Fprintf(&b, "%s\n%s", text, d.one([]string{"", "", "\n"}))
	}
	return b.Bytes()
}

// distort makes a request wrong as a whole.
func (d *driver) distort(r *drawn) {
	switch d.IntN(5) {
	case 0:
		r.method = d.one([]string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "FOO"})
	case 1:
		r.path += d.one([]string{"/", "/x", "//", "/%2f", "/..", "%20", ";v=1", "/%F0%9F%99%82"})
	case 2:
		r.path = d.one([]string{"/", "/api", "/api/", "//api/jobs", "/API/jobs", "/api/jobs//quota", "/api/./jobs/quota", "/api/jobs/../jobs/quota", "/%61pi/jobs/quota"})
	case 3:
		r.path += d.one([]string{"%zz", "%", "%1", "/%e"})
		r.body, r.header = nil, http.Header{} // the server reads no further, and closes: what is on its way breaks the answer off
	case 4:
		name := d.one([]string{"Prefer", "If-None-Match", "If-Match", "X-Request-Id", "Idempotency-Key", "Traceparent", "Accept", "Expect", "Range", "Authorization"})
		r.header[http.CanonicalHeaderKey(name)] = []string{headerText(d.one(strange)), headerText(d.one(strange))}
	}
}

func (d *driver) send(r *drawn) (*contracttest.Exchange, error) {
	request, err := http.NewRequest(r.method, d.url, bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	request.URL.Opaque, request.URL.RawQuery = r.path, r.query
	if strings.HasPrefix(r.path, "//") { // of which the client makes an absolute URL
		request.URL.Opaque = "//" + request.URL.Host + r.path
	}
	request.Header = r.header.Clone()
	answer, err := d.http.Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	body, err := readAnswer(answer)
	if parsed, err := url.Parse(r.path); err == nil {
		parsed.RawQuery = r.query
		request.URL = parsed
	}
	return &contracttest.Exchange{
		Request: request, RequestBody: r.body, Status: answer.StatusCode, Header: answer.Header, Body: body,
	}, err
}

// judge returns what is wrong with an answer.
func (d *driver) judge(o *contract.Operation, r *drawn, x *contracttest.Exchange) error {
	if x.Status >= 500 && x.Status != http.StatusServiceUnavailable {
		return errors.New("the service failed")
	}
	if err := d.checker.Check(x); err != nil {
		return err
	}
	found, _ := d.checker.Find(r.method, x.Request.URL.EscapedPath())
	if r.honest && found == o {
		return d.judgeHonest(o, x)
	}
	return nil
}

// ofTheService are the fields about which the contract cannot say everything.
var ofTheService = []string{"cursor", "plan", "expires_at", "source_url", "application_url", "q"}

// judgeHonest checks that what the contract allows is not called invalid.
func (d *driver) judgeHonest(o *contract.Operation, x *contracttest.Exchange) error {
	if x.Status != http.StatusBadRequest && x.Status != http.StatusUnsupportedMediaType {
		return nil
	}
	var problem struct {
		Errors []struct{ Field, Detail string }
	}
	if err := json.Unmarshal(x.Body, &problem); err != nil {
		return err
	}
	if err := d.checker.CheckRequest(o, x); err != nil {
		return nil // the generator does not know every keyword
	}
	for _, e := range problem.Errors {
		if slices.Contains(ofTheService, e.Field) {
			return nil
		}
	}
	return errors.New("the contract allows this request")
}

// The values that an answer may tell, by the schema of which they are.
var learnable = map[string]*regexp.Regexp{
	"JobID":     regexp.MustCompile(`"(job_[a-z2-7]{24})"`),
	"Position":  regexp.MustCompile(`"position":"([0-9]+-[0-9]+)"`),
	"WebhookID": regexp.MustCompile(`"id":"(wh_[a-z2-7]{20})"`),
	"TokenID":   regexp.MustCompile(`"id":"([0-9A-Za-z]{12})"`),
}

// learn keeps some of what an answer tells, to ask for it later.
func (d *driver) learn(x *contracttest.Exchange) {
	if at := x.Header.Get("Location"); strings.Contains(at, "/tokens/") {
		d.issued = append(d.issued, at)
	}
	for name, value := range learnable {
		if m := value.FindSubmatch(x.Body); m != nil && d.chance(20) {
			d.known[name] = append(d.known[name], string(m[1]))
			d.known[name] = d.known[name][max(0, len(d.known[name])-20):]
		}
	}
}
