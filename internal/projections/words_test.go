package projections

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

func TestWords(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", maxWordLength)
	for text, want := range map[string][]string{
		"":                                         nil,
		" \t\n?!…🗼👩‍💻":                             nil,
		"Senior Go-Developer (m/w/d)":              {"senior", "go", "developer", "m", "w", "d"},
		"C++, C# & .NET 8":                         {"c", "c", "net", "8"},
		"ÄRZTIN für Gynäkologie":                   {"arztin", "fur", "gynakologie"},
		"a\u0308rztin":                             {"arztin"}, // the same in another form
		"Straße STRASSE STRA\u1e9eE":               {"strasse", "strasse", "strasse"},
		"İstanbul ISTANBUL ıstanbul":               {"istanbul", "istanbul", "istanbul"},
		"ΟΔΟΣ οδός":                                {"οδοσ", "οδοσ"},
		"ﬁnance Œuvre ÆON Łódź ŒRSTED":             {"finance", "oeuvre", "aeon", "lodz", "oersted"},
		"Ørsted Đà":                                {"orsted", "da"},
		"Ｇｏ １２":                                    {"go", "12"},
		"工程师 Go工程":                                 {"工", "程", "师", "go", "工", "程"},
		"エンジニア":                                    {"エ", "ン", "シ", "ニ", "ア"},
		"개발자":                                      {"개발자"},
		"हिन्दी":                                   {"हिनदी"},
		"Ελλάδα Москва":                            {"ελλαδα", "москва"},
		"don’t":                                    {"don", "t"},
		"a" + strings.Repeat("\u0301", 5000) + "b": {"ab"},
		long + "yz":                                {long},
		"ab" + strings.Repeat("ж", 40):             {"ab" + strings.Repeat("ж", 15)},
		"a\xff\xfeb\x00c":                          {"a", "b", "c"},
	} {
		var got []string
		eachWord(text, func(word string) { got = append(got, word) })
		if !slices.Equal(got, want) {
			t.Errorf("%.40q has the words %q, want %q", text, got, want)
		}
	}
}

// checkWords fails unless the words of a text are well-formed, words of themselves, and find the text, as any beginning of one
// of them does.
func checkWords(t *testing.T, text string) {
	t.Helper()
	query := queryWords(text)
	data, err := jsonOf(text)
	ok(t, err)
	for _, words := range [][]string{query, nil} {
		if has, err := hasWords(data, words); !has || err != nil {
			t.Errorf("%q is not found by its words %q, %v", text, words, err)
		}
	}
	for _, word := range query {
		if word == "" || len(word) > maxWordLength || !utf8.ValidString(word) || strings.ContainsFunc(word, func(c rune) bool { return unicode.ToLower(c) != c }) {
			t.Errorf("%q of %q is no word", word, text)
		}
		if again := queryWords(word); !slices.Equal(again, []string{word}) {
			t.Errorf("the word %q of %q has the words %q", word, text, again)
		}
		_, first := utf8.DecodeRuneInString(word)
		if has, err := hasWords(data, []string{word[:first]}); !has || err != nil {
			t.Errorf("%q is not found by the beginning of %q, %v", text, word, err)
		}
	}
}

// Every character is a word of itself, or of none, or is written with others that are.
func TestEveryCharacterIsFoundByItself(t *testing.T) {
	t.Parallel()
	for c := rune(0); c <= unicode.MaxRune; c++ {
		eachWord(string(c), func(word string) {
			if again := queryWords(word); !slices.Equal(again, []string{word}) {
				t.Errorf("%U has the word %q, which has the words %q", c, word, again)
			}
		})
		if upper := unicode.ToUpper(c); upper != c && !unicode.Is(unicode.Mn, c) && !slices.Equal(queryWords(string(c)), queryWords(string(upper))) {
			t.Errorf("%U has the words %q, in upper case %q", c, queryWords(string(c)), queryWords(string(upper)))
		}
	}
}

func FuzzWords(f *testing.F) {
	for _, text := range []string{
		"Senior Go Developer", "Straße STRASSE", "İstanbul", "ﬁ ﬀ ﬃ", "a" + strings.Repeat("\u0301\u0323", 40), "工程师", "개발자", "👩‍💻", "\xff\xfe", "ΟΔΟΣ",
		strings.Repeat("ж", 100), "हिन्दी", "\u1100\u1161\u11a8\u1161", "ｶﾞ", "ẞ", "Ǆ ǅ", "\u0345", "½", "\u200dx\u200c",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) { checkWords(t, text) })
}

// FuzzWordIndex: whatever bytes stand in the word index, they are read or refused.
func FuzzWordIndex(f *testing.F) {
	f.Add([]byte{2, 'g', 'o', 1, 7, 3, 'g', 'o', 'x', 2, 1, 255}, "go")
	f.Add([]byte{255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, "")
	f.Add([]byte{1}, "x")
	f.Fuzz(func(t *testing.T, b []byte, prefix string) {
		if counted, rest, ok := cutCounted(b); ok && len(counted)+len(rest) >= len(b) {
			t.Errorf("%x was cut into %x and %x", b, counted, rest)
		}
		var places placed
		if err := placesIn(b, prefix, places.add); err != nil && !errors.Is(err, ErrMismatch) {
			t.Errorf("%x: %v", b, err)
		}
		for i := range places {
			places[i] = ^uint64(0)
		}
		sequences, err := appendPlaced(nil, b, &places)
		if err != nil && !errors.Is(err, ErrMismatch) || len(sequences) > chunkSize {
			t.Errorf("%x: %d sequences, %v", b, len(sequences), err)
		}
	})
}

// What is written of a chunk is read back: each word, and each beginning of one, with exactly the jobs that have it.
func TestWordIndexReadsBack(t *testing.T) {
	t.Parallel()
	var chunk []looseJob
	for i := range chunkSize {
		data, err := jsonOf(fmt.Sprintf("all w%d %s end", i, strings.Repeat(fmt.Sprintf("n%d ", i%7), 3)))
		ok(t, err)
		chunk = append(chunk, looseJob{uint64(i*i*1000 + 1), data})
	}
	jobs, places, err := placesOf(chunk)
	ok(t, err)
	for word, want := range map[string]int{"all": chunkSize, "n3": 37, "w17": 1, "w1": 1} {
		var at placed
		for _, place := range places[word] {
			at.add(place)
		}
		sequences, err := appendPlaced(nil, jobs, &at)
		ok(t, err)
		if len(sequences) != want || len(places[word]) != want {
			t.Errorf("%s: %d jobs, want %d", word, len(sequences), want)
		}
		for _, sequence := range sequences {
			i := slices.IndexFunc(chunk, func(job looseJob) bool { return job.sequence == sequence })
			if has, err := hasWords(chunk[i].data, []string{word}); !has || err != nil {
				t.Errorf("%s: job %d has it not, %v", word, sequence, err)
			}
		}
	}
}

// TestTheBeginningOfALongTextIsSearched, and no more, however much its characters are when they are taken apart: else one
// account could hold up all others. A job is found by the same words before and after it is in the index.
func TestTheBeginningOfALongTextIsSearched(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"plain ", "Ümläut ", "\ufdfa", "工", "a" + strings.Repeat("\u0301", 50), "\uac00"} {
		words, characters := 0, 0
		eachWord(strings.Repeat(text, 100_000/len([]rune(text))), func(word string) {
			words++
			characters += len([]rune(word))
		})
		if most := searchedLength + 100; words == 0 || words > most || characters > most {
			t.Errorf("%q: %d words of %d characters", text, words, characters)
		}
	}
	tr := newTrackerOf(t, 1)
	tr.ask("a", openWith(-1))
	for i := range chunkSize + 10 {
		body := captureOf(november, fmt.Sprintf("https://example.com/%d", i))
		body.Job.Description = "begins"
		if text, long := map[int]string{0: " plain", 1: " Ümläut"}[i%16]; long { // 3,000 of the second are too long for what comes behind
			body.Job.Description += strings.Repeat(text, 3000) + " middle" + strings.Repeat(" ", searchedLength) + "ends"
		}
		tr.ask("a", body)
	}
	tr.settle()
	for word, want := range map[string]int{"begins": chunkSize + 10, "middle": chunkSize/16 + 1, "ends": 0} {
		if jobs := slices.Concat(tr.pages("a", capture.JobQuery{Text: word, Limit: 2 * chunkSize})...); len(jobs) != want {
			t.Errorf("%d jobs have the word %s, want %d", len(jobs), word, want)
		}
	}
}

// hasWords says whether the content that a decision gives a job has some words; what has them may have them.
func hasWords(data []byte, words []string) (bool, error) {
	var text struct{ Job events.Job }
	err := json.Unmarshal(data, &text)
	has := jobHasWords(&text.Job, words)
	if has && !mayHave(data, words) {
		return false, fmt.Errorf("%s has the words %q, and may not have them", data, words)
	}
	return has, err
}

// jsonOf is the data of a decision that gives a job a description.
func jsonOf(description string) ([]byte, error) {
	return json.Marshal(events.JobUpdated{Job: events.Job{Description: description}})
}
