package contracttest

import (
	"encoding/json"
	"fmt"
	"sync"

	"jobtally/internal/contract"
)

// Seen is what of the contract was exercised.
type Seen struct {
	mu       sync.Mutex
	statuses map[string]int // "operationId status"
	codes    map[string]int // of problems
}

func (s *Seen) add(o *contract.Operation, x *Exchange) {
	var problem struct{ Code string }
	if x.Status >= 400 {
		_ = json.Unmarshal(x.Body, &problem) // what is no problem is found elsewhere
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.statuses == nil {
		s.statuses, s.codes = map[string]int{}, map[string]int{}
	}
	s.statuses[statusOf(o, x.Status)]++
	if problem.Code != "" {
		s.codes[problem.Code]++
	}
}

func statusOf(o *contract.Operation, status int) string { return fmt.Sprintf("%s %d", o.ID, status) }

// Unexercised returns each "operationId status" of the contract that no checked exchange had.
func (c *Checker) Unexercised() (missing []string) {
	c.Seen.mu.Lock()
	defer c.Seen.mu.Unlock()
	for _, o := range c.Operations {
		for _, a := range o.Answers {
			if name := statusOf(o, a.Status); c.Seen.statuses[name] == 0 {
				missing = append(missing, name)
			}
		}
	}
	return missing
}
