// Package near tells which name was meant by one that is not known.
package near

import (
	"regexp"
	"slices"
	"strings"
)

// Name returns the known name that another one was probably meant to be, or nothing.
func Name(name string, known []string) (best string) {
	const near = 2
	distance := near + 1
	for _, candidate := range known {
		if d := editDistance(plain(name), plain(candidate)); d < distance {
			best, distance = candidate, d
		}
	}
	return best
}

var version = regexp.MustCompile(`\.v[0-9]+$`)

// Type returns the CloudEvents type that another one was probably meant to be: one of those that are known, or, where it
// has no version, such a one without; or nothing. Its last words are enough: captured means jobtally.job.captured.
func Type(wanted string, known []string) string {
	var bare []string
	for _, ceType := range known {
		bare = append(bare, version.ReplaceAllString(ceType, ""))
	}
	if best := Name(wanted, slices.Concat(known, bare)); best != "" {
		return best
	}
	for i, name := range bare {
		if version.MatchString(wanted) {
			name = known[i]
		}
		if wanted != "" && strings.HasSuffix(name, "."+wanted) {
			return name
		}
	}
	return ""
}

// plain returns a name without what the spellings of names differ by: sourceURL and source-url are source_url.
func plain(name string) string {
	const longest = 64 // no name that long is near to any
	return strings.NewReplacer("_", "", "-", "", " ", "").Replace(strings.ToLower(name[:min(len(name), longest)]))
}

// editDistance counts the bytes to insert, delete, replace or swap with their neighbour to make b of a.
func editDistance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			change := 1
			if a[i] == b[j] {
				change = 0
			}
			row[j+1] = min(last[j]+change, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}
