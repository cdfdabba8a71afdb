package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// usedCounts asks the service for the quota of each token's account, and returns what it says of used.
func usedCounts(addr string, tokens []string) ([]int, error) {
	const connections = 16
	used, errs := make([]int, len(tokens)), make([]error, connections)
	var asking sync.WaitGroup
	for first := range connections {
		asking.Go(func() { errs[first] = askQuotas(addr, tokens, used, first, connections) })
	}
	asking.Wait()
	return used, errors.Join(errs...)
}

// askQuotas asks for every step-th of the quotas.
func askQuotas(addr string, tokens []string, used []int, first, step int) (err error) {
	c, err := dial(addr, time.Now().Add(2*stall))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	form := quotaForm("").copy()
	for i := first; i < len(tokens); i += step {
		status, body, err := c.exchange(form.fill(tokens[i], 0))
		if err != nil {
			return err
		}
		if status != 200 {
			return fmt.Errorf("the quota of account %d was answered %d: %.200s", i, status, body)
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(string(body), `{"used":`), ",")
		if used[i], err = strconv.Atoi(number); err != nil {
			return fmt.Errorf("the quota of account %d: %w", i, err)
		}
	}
	return nil
}

// checkQuotas asserts that each account has used what it held before plus the captures of a load that were its own:
// request n was of account n modulo their number.
func checkQuotas(addr string, tokens []string, held []int, captured int) error {
	used, err := usedCounts(addr, tokens)
	if err != nil {
		return err
	}
	for i := range tokens {
		own := captured / len(tokens)
		if i < captured%len(tokens) {
			own++
		}
		if held[i] += own; used[i] != held[i] {
			return fmt.Errorf("account %d has used %d, but %d captures of it were answered 201", i, used[i], held[i])
		}
	}
	return nil
}
