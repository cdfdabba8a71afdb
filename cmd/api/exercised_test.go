package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
)

// notExercised says why nothing in this package exercises a status of an operation. An operation of * is any.
var notExercised = map[string]string{
	"* 500":            "a fault of the service; TestFailuresTellNothing and TestFailuresOfReading of internal/http",
	"* 503":            "the moments in which a node starts or has no ledger; internal/http, operation by operation",
	"* 429":            "clients on this machine are not limited; limits_test.go of internal/http",
	"getQuota 404":     "the account is erased between two reads; TestQuotaOfUnknownAccount of internal/http",
	"listMonths 404":   "likewise; TestFailuresOfReadingMonths of internal/http",
	"captureJobs 404":  "likewise; TestBatchesThatFail of internal/http",
	"getAccount 404":   "likewise; TestOwnAccount of internal/http",
	"openAccount 404":  "the account is opened, and erased before that is answered; TestAdministrationThatFails of internal/http",
	"streamEvents 410": "the operator removes decisions from the ledger; TestAPositionThatIsPruned of internal/node, TestStreamsThatCannotBegin of internal/http",
	"getMonth 422":     "a month of 100,000 requests; TestReplayOfALargeMonthIsRefused of internal/http",
}

// everythingRan says whether the whole of these tests was asked for, once.
func everythingRan() bool {
	for _, name := range []string{"test.run", "test.skip", "test.bench", "test.fuzz", "test.list"} {
		if flag.Lookup(name).Value.String() != "" {
			return false
		}
	}
	return true
}

// unexercised returns an exit code: 1 if the tests left out a status of the contract without a reason, or had one that
// stands in the list.
func unexercised() (code int) {
	missing := theContract().Unexercised()
	excused := map[string]bool{}
	for _, name := range missing {
		_, status, _ := strings.Cut(name, " ")
		excused[name], excused["* "+status] = true, true
		if notExercised[name] == "" && notExercised["* "+status] == "" {
			fmt.Fprintf(os.Stderr, "no test exercises %s of docs/openapi.yaml\n", name)
			code = 1
		}
	}
	for name := range notExercised {
		if !excused[name] {
			fmt.Fprintf(os.Stderr, "%s is exercised: it is in the list of what is not\n", name)
			code = 1
		}
	}
	for _, ceType := range unseen() {
		fmt.Fprintf(os.Stderr, "no test has an event of type %s\n", ceType)
		code = 1
	}
	return code
}
