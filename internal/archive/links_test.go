package archive

import (
	"fmt"
	"testing"

	"jobtally/internal/events"
)

// Chains come in from decisions however long ago; for most accounts from just before, for the last few by name.
func TestLinksAreFoundHoweverLongAgo(t *testing.T) {
	t.Parallel()
	b := newBooks(t, 1)
	const accounts = 3 * fewAccounts
	name := func(n int) string { return fmt.Sprint("account", n) }
	last := map[string]events.Decision{}
	change := func(account string, i int) {
		last[account] = b.ask(account, fmt.Sprint(i), day(october, 2), &events.PlanChangeRequested{Plan: "p", Limit: int64(i)})
	}
	for n := range accounts {
		b.open(name(n), day(october, 1), -1)
		change(name(n), n)
	}
	for i := range leastLook {
		change(name(i%(2*fewAccounts)), i)
	}
	for i := range leastLook {
		change(name(i%fewAccounts), i)
	}
	wanted := links{}
	for n := range accounts {
		d := b.ask(name(n), "next", day(october, 3), &events.PlanChangeRequested{Plan: "q", Limit: 1})
		wanted.want(&d)
	}
	b.reads = 0
	ok(t, wanted.find(t.Context(), b.source(), 0))
	for n := range accounts {
		for _, digest := range wanted[name(n)] {
			if digest != last[name(n)].Digest {
				t.Errorf("%s follows from %s", name(n), digest)
			}
		}
	}
	if b.reads > 4*leastLook {
		t.Errorf("%d messages were read", b.reads)
	}
	stray := links{"stranger": {7: {}}}
	if err := stray.find(t.Context(), b.source(), 0); err == nil {
		t.Error("a link of an account that has none is found")
	}
}
