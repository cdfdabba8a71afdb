package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"jobtally/internal/contracttest"
)

// notExercised says why nothing in this package exercises a status of an operation. An operation of * is any.
var notExercised = map[string]string{}

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
	missing = slices.DeleteFunc(missing, func(name string) bool {
		operation, _, _ := strings.Cut(name, " ")
		return slices.Contains(contracttest.NotServed, operation)
	})
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
	return code
}
