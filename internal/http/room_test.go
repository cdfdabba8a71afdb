package http

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"
)

// aBatch is a batch whose body is as long as it says, or does not say how long it is where that is -1, and of which nothing comes
// until the test lets it.
func aBatch(n *limitedNode, address, held string, length int64, come io.Reader) exchange {
	r := httptest.NewRequest("POST", "/api/jobs/batch", come)
	r.ContentLength = length
	return n.answer(r, address, held, "Content-Type: application/x-ndjson")
}

// What clients send at once is held in memory until it is answered: a batch may be 16 times as large as any other body.
func TestALargeBatchCountsAsTheRequestsThatItIsAsLargeAs(t *testing.T) {
	for name, limits := range map[string]Limits{
		"of a token": {RequestsAtOnce: 40}, "of an address": {RequestsAtOncePerAddress: 40}, "of both": {RequestsAtOnce: 40, RequestsAtOncePerAddress: 40},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLimitedNode(t, limits)
			anna := n.anna.Reveal()
			ends, done := []*io.PipeWriter{}, make(chan exchange)
			for _, length := range []int64{-1, maxBatchBytes - 100} { // 32 of the 40
				come, end := io.Pipe()
				ends = append(ends, end)
				go func() { done <- aBatch(n, home, anna, length, come) }()
				if _, err := io.WriteString(end, "\n"); err != nil { // it is being read
					t.Fatal(err)
				}
			}
			x := aBatch(n, home, anna, -1, strings.NewReader(""))
			x.wantsProblem(t, codeTooManyRequestsAtOnce)
			x.wantsHeader(t, "Retry-After: 1")
			aBatch(n, home, anna, 7*maxBodyBytes+1, strings.NewReader("")).wantsProblem(t, codeInvalidRequest)
			aBatch(n, home, anna, 9*maxBodyBytes, strings.NewReader("")).wantsProblem(t, codeTooManyRequestsAtOnce)
			n.get(home, anna).wants(t, 200, `{"used":0…`)
			aBatch(n, loopback, n.bob.Reveal(), -1, strings.NewReader("")).wantsProblem(t, codeInvalidRequest)
			for _, end := range ends {
				end.Close()
				(<-done).wantsProblem(t, codeInvalidRequest) // nothing is in it
			}
			for range 3 {
				aBatch(n, home, anna, -1, strings.NewReader("")).wantsProblem(t, codeInvalidRequest)
			}
		})
	}
}

// A limit below that of one large batch does not refuse all of them.
func TestALargeBatchThatIsAloneIsTaken(t *testing.T) {
	n := newLimitedNode(t, Limits{RequestsAtOnce: 2, RequestsAtOncePerAddress: 2})
	for range 3 {
		aBatch(n, home, n.anna.Reveal(), -1, strings.NewReader("")).wantsProblem(t, codeInvalidRequest)
	}
}
