package archive

import (
	"testing"

	"jobtally/internal/events"
)

func TestArchivesOfThreeMonthsAreSound(t *testing.T) {
	for _, partitions := range []int{1, 3} {
		b := threeMonths(t, partitions)
		for _, month := range []events.Month{october, november, december} {
			dir := b.exported(month)
			wantSound(t, dir)
			if testing.Verbose() {
				for _, e := range unpacked(t, dir, "accounts-0.jsonl.gz") {
					t.Logf("%s", e)
				}
			}
		}
	}
}
