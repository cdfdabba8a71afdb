package capture

import (
	"encoding/json"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"jobtally/internal/events"
)

// past is the plain list of what happened in one account. Each method answers its question by going through it all.
type past []step

// pastOf returns the steps of an account.
func pastOf(steps []step, account string) (p past) {
	for _, s := range steps {
		if s.request.Account == account {
			p = append(p, s)
		}
	}
	return p
}

// plan returns the plan and limit that hold, or not ok if the account was never opened.
func (p past) plan() (plan string, limit int64, ok bool) {
	for _, s := range p {
		switch b := s.decision.Body.(type) {
		case *events.AccountOpened:
			plan, limit, ok = b.Plan, b.Limit, true
		case *events.PlanChanged:
			plan, limit = b.Plan, b.Limit
		}
	}
	return plan, limit, ok
}

// captured returns the steps that put a job into the tracker.
func (p past) captured() (steps past) {
	for _, s := range p {
		if _, ok := s.decision.Body.(*events.JobCaptured); ok {
			steps = append(steps, s)
		}
	}
	return steps
}

func (p past) used(month events.Month) (used int64) {
	for _, s := range p.captured() {
		if s.request.Body.(*events.JobCaptureRequested).Month == month {
			used++
		}
	}
	return used
}

// firstAnswer returns the step that answered the capture request with this id on its merits.
func (p past) firstAnswer(id string) (first step, ok bool) {
	for _, s := range p {
		switch s.decision.Body.(type) {
		case *events.JobCaptured, *events.JobCaptureDuplicated, *events.JobCaptureRejected:
			if s.request.ID == id {
				return s, true
			}
		}
	}
	return step{}, false
}

// job returns a job as it is now, with its version, or not ok if there is none: never captured, or deleted.
func (p past) job(id string) (job events.Job, version int64, url string, ok bool) {
	for _, s := range p {
		switch b := s.decision.Body.(type) {
		case *events.JobCaptured:
			if b.JobID == id {
				asked := s.request.Body.(*events.JobCaptureRequested)
				job, version, url, ok = asked.Job, 1, asked.CanonicalURL, true
			}
		case *events.JobUpdated:
			if b.JobID == id {
				job, _ = changed(job, s.request.Body.(*events.JobUpdateRequested).Changes)
				version++
			}
		case *events.JobDeleted:
			ok = ok && b.JobID != id
		}
	}
	return job, version, url, ok
}

// changed returns a job with changes, and the fields that differ, by way of its JSON.
func changed(job events.Job, changes map[string]string) (next events.Job, fields []string) {
	asMap := func(job events.Job) map[string]string {
		text, _ := json.Marshal(job)
		fields := map[string]string{}
		json.Unmarshal(text, &fields)
		return fields
	}
	was, is := asMap(job), asMap(job)
	maps.Copy(is, changes)
	text, _ := json.Marshal(is)
	json.Unmarshal(text, &next)
	fields = []string{}
	for _, name := range []string{"title", "company", "location", "description", "application_url", "job_type", "notes", "status"} {
		if was[name] != is[name] {
			fields = append(fields, name)
		}
	}
	return next, fields
}

// there returns the jobs in the tracker under a canonical URL.
func (p past) there(url string) (ids []string) {
	for _, s := range p.captured() {
		id := s.decision.Body.(*events.JobCaptured).JobID
		if _, _, of, ok := p.job(id); ok && of == url {
			ids = append(ids, id)
		}
	}
	return ids
}

// token says whether a token was ever issued.
func (p past) token(id string) bool {
	for _, s := range p {
		if b, ok := s.decision.Body.(*events.TokenIssued); ok && b.TokenID == id {
			return true
		}
	}
	return false
}

// answer returns what a request is to be answered. The id of a new job and the words of a refusal are left out.
func (p past) answer(r *events.Request) events.DecisionBody {
	refused := func(reason string) events.DecisionBody {
		return &events.RequestRefused{Kind: events.KindOf(r.Body), Reason: reason}
	}
	plan, limit, open := p.plan()
	opening, isOpening := r.Body.(*events.AccountOpenRequested)
	_, isMalformed := r.Body.(*events.Malformed)
	switch {
	case isMalformed:
		return refused("malformed")
	case isOpening && open:
		return refused("account_exists")
	case isOpening:
		return &events.AccountOpened{Plan: opening.Plan, Limit: opening.Limit, Who: opening.Who}
	case !open:
		return refused("account_unknown")
	}
	switch b := r.Body.(type) {
	case *events.PlanChangeRequested:
		return &events.PlanChanged{Plan: b.Plan, Limit: b.Limit, PreviousPlan: plan, PreviousLimit: limit, Who: b.Who}
	case *events.TokenIssueRequested:
		if p.token(b.TokenID) {
			return refused("token_exists")
		}
		return &events.TokenIssued{TokenID: b.TokenID, SecretHash: b.SecretHash, TokenTerms: b.TokenTerms, Who: b.Who}
	case *events.TokenRevokeRequested:
		if !p.token(b.TokenID) {
			return refused("token_unknown")
		}
		return &events.TokenRevoked{TokenID: b.TokenID, Who: b.Who}
	case *events.JobUpdateRequested:
		return p.answerChange(b.JobID, b.IfVersion, refused, func(job events.Job, version int64, url string) events.DecisionBody {
			next, fields := changed(job, b.Changes)
			return &events.JobUpdated{JobID: b.JobID, Version: version + 1, Job: next, CanonicalURL: url, Changed: fields}
		})
	case *events.JobDeleteRequested:
		return p.answerChange(b.JobID, b.IfVersion, refused, func(_ events.Job, version int64, url string) events.DecisionBody {
			return &events.JobDeleted{JobID: b.JobID, Version: version + 1, CanonicalURL: url}
		})
	}
	return p.answerCapture(r.ID, r.Body.(*events.JobCaptureRequested), limit, refused)
}

func (p past) answerChange(
	id string, ifVersion int64, refused func(string) events.DecisionBody, made func(events.Job, int64, string) events.DecisionBody,
) events.DecisionBody {
	job, version, url, ok := p.job(id)
	switch {
	case !ok:
		return refused("not_found")
	case ifVersion > 0 && ifVersion != version:
		return refused("version_conflict")
	}
	return made(job, version, url)
}

func (p past) answerCapture(
	id string, b *events.JobCaptureRequested, limit int64, refused func(string) events.DecisionBody,
) events.DecisionBody {
	source := events.Source{CanonicalURL: b.CanonicalURL, SourceRules: b.SourceRules, PayloadHash: b.PayloadHash}
	used := p.used(b.Month)
	count := events.Count{Month: b.Month, Used: used, Limit: limit}
	if first, ok := p.firstAnswer(id); ok {
		if first.request.Body.(*events.JobCaptureRequested).PayloadHash == b.PayloadHash {
			return &events.JobCaptureRepeated{First: first.request.Position, Month: b.Month}
		}
		return refused("idempotency_key_reused")
	}
	if there := p.there(b.CanonicalURL); len(there) > 0 {
		return &events.JobCaptureDuplicated{JobID: there[0], SourceURL: b.Job.SourceURL, Source: source, Count: count}
	}
	if limit >= 0 && used+1 > limit {
		year, month, _ := b.Month.Start().Date()
		reset := b.Month.Start().AddDate(0, 0, daysOf(year, int(month))).Format("2006-01-02")
		return &events.JobCaptureRejected{Reason: "quota_exceeded", SourceURL: b.Job.SourceURL, Source: source, Count: count, ResetDate: reset}
	}
	count.Used++
	captured := &events.JobCaptured{Job: b.Job, Source: source, Count: count}
	if reached := level(used+1, limit); limit > 0 && reached > level(used, limit) {
		captured.Threshold = reached
	}
	return captured
}

func daysOf(year, month int) int {
	days := [...]int{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31}[month-1]
	if month == 2 && year%4 == 0 && (year%100 != 0 || year%400 == 0) {
		days++
	}
	return days
}

var jobIDForm = regexp.MustCompile(`^job_[a-z2-7]{24}$`)

// TestEveryAnswerIsTheOraclesAnswer decides random histories, and compares each decision with one that is worked out
// from the list of all that happened before.
func TestEveryAnswerIsTheOraclesAnswer(t *testing.T) {
	seen := map[string]int{}
	checkUntilHad(t, seen, []string{
		"captured", "duplicated", "rejected", "repeated", "refused", "opened", "plan_changed", "token_issued", "token_revoked",
		"updated", "deleted", "not_found", "version_conflict", "captured again", "updated to the same",
		"idempotency_key_reused", "malformed", "account_unknown", "account_exists", "token_exists", "token_unknown",
	}, func(t *rapid.T) {
		h := newHistory()
		jobs := map[string]bool{}
		for _, m := range drawHistory(t, "history", allAccounts...) {
			before := h.steps
			s := h.take(t, m)
			want := pastOf(before, s.request.Account).answer(&s.request)
			got := reflect.New(reflect.TypeOf(s.decision.Body).Elem())
			got.Elem().Set(reflect.ValueOf(s.decision.Body).Elem())
			switch b := got.Interface().(type) {
			case *events.JobCaptured:
				if !jobIDForm.MatchString(b.JobID) || jobs[b.JobID] {
					t.Fatalf("%s: job id %q is ill-formed or taken", s.decision.Position, b.JobID)
				}
				jobs[b.JobID] = true
				if slices.ContainsFunc(pastOf(before, s.request.Account).captured(), func(earlier step) bool {
					return earlier.request.Body.(*events.JobCaptureRequested).CanonicalURL == b.CanonicalURL
				}) {
					seen["captured again"]++
				}
				b.JobID = ""
			case *events.JobUpdated:
				if len(b.Changed) == 0 {
					seen["updated to the same"]++
				}
			case *events.RequestRefused:
				if b.Detail == "" {
					t.Fatalf("%s: a refusal without a word", s.decision.Position)
				}
				seen[b.Reason]++
				b.Detail = ""
			}
			if !reflect.DeepEqual(got.Interface(), want) {
				t.Fatalf("%s: %+v\ndecided %T %+v\n   want %T %+v", s.decision.Position, s.request.Body, s.decision.Body, s.decision.Body, want, want)
			}
			if d := s.decision; d.Account != s.request.Account || d.RequestID != s.request.ID || !d.Time.Equal(s.request.Time) ||
				d.Position != s.request.Position || d.RequestDigest != s.request.Digest {
				t.Fatalf("%s: the decision is on another request: %+v", d.Position, d)
			}
			seen[events.OutcomeOf(s.decision.Body)]++
		}
	})
}

// checkUntilHad checks a property until its draws had all that is wanted, which those of one check may lack by chance.
func checkUntilHad(t *testing.T, had map[string]int, wanted []string, property func(*rapid.T)) {
	t.Helper()
	lacking := wanted
	for try := 0; len(lacking) > 0; try++ {
		if try == 20 {
			t.Fatalf("no draw had %q: %v", lacking, had)
		}
		rapid.Check(t, property)
		lacking = slices.DeleteFunc(slices.Clone(wanted), func(what string) bool { return had[what] > 0 })
	}
}
