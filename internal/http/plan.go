package http

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

const (
	freePlan   = "free"   // of an account for which nothing is said
	customPlan = "custom" // of an account that has a limit of its own

	maxLimit       = 1_000_000_000_000
	maxPlanName    = 100
	maxReasonChars = 500
)

// plan is what an account may capture a month.
type plan struct {
	name  string
	limit int64
}

// planFields are how a plan is chosen: one of the catalogue, or a limit.
type planFields struct {
	plan  string
	limit *int64
}

func (f *planFields) fields() []jsonField {
	return []jsonField{{"plan", optionalText(&f.plan, maxPlanName)}, {"limit", f.takeLimit}}
}

func (f *planFields) takeLimit(raw json.RawMessage) string {
	if raw[0] == 'n' {
		return ""
	}
	if kind := nameOfRaw(raw); kind != "a number" {
		return "must be a number, not " + kind
	}
	limit, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || limit < capture.Unlimited || limit > maxLimit {
		return fmt.Sprintf("must be a whole number from -1, which is unlimited, to %d", maxLimit)
	}
	f.limit = &limit
	return ""
}

// choose returns the plan that is meant. What is wrong with the choice is noted in the object.
func (f *planFields) choose(o *object, catalogue map[string]int64) plan {
	switch {
	case o.faulty("plan", "limit"):
	case f.plan == "" && f.limit == nil:
		o.wrong("plan", "is missing, and so is limit: send one of them")
	case f.plan != "" && f.limit != nil:
		o.wrong("limit", "must not be there together with plan")
	case f.limit != nil:
		return plan{customPlan, *f.limit}
	default:
		if limit, known := catalogue[f.plan]; known {
			return plan{f.plan, limit}
		}
		o.wrong("plan", "must be one of "+strings.Join(slices.Sorted(maps.Keys(catalogue)), ", ")+", or left out with a limit instead")
	}
	return plan{}
}

// decodeNewAccount reads the body of POST /api/admin/accounts.
func decodeNewAccount(body []byte, catalogue map[string]int64) (name string, p plan, err error) {
	var choice planFields
	o, err := decodeObject(body, "an account", append([]jsonField{{"account", takeAccount(&name)}}, choice.fields()...)...)
	if err != nil {
		return "", p, err
	}
	if !o.has("account") {
		o.wrong("account", "is missing")
	}
	if choice.plan == "" && choice.limit == nil {
		choice.plan = freePlan
	}
	p = choice.choose(&o, catalogue)
	return name, p, o.problem()
}

// decodeNewPlan reads the body of PUT /api/admin/accounts/{account}/plan.
func decodeNewPlan(body []byte, catalogue map[string]int64) (p plan, reason string, err error) {
	var choice planFields
	o, err := decodeObject(body, "a plan", append(choice.fields(), jsonField{"reason", optionalText(&reason, maxReasonChars)})...)
	if err != nil {
		return p, "", err
	}
	p = choice.choose(&o, catalogue)
	return p, reason, o.problem()
}

// takeAccount takes the name of an account.
func takeAccount(into *string) func(json.RawMessage) string {
	return func(raw json.RawMessage) (wrong string) {
		if *into, wrong = textOf(raw); wrong != "" {
			return wrong
		}
		if events.ValidAccount(*into) != nil {
			return fmt.Sprintf("must have 1 to %d characters out of a-z, 0-9, _ and -", events.MaxAccountLength)
		}
		return ""
	}
}
