package projections

import (
	"bytes"
	"cmp"
	"database/sql"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"

	"jobtally/internal/events"
)

const (
	// chunkSize is how many jobs of an account are indexed together: the place of a job in its chunk is a byte.
	chunkSize = 256
	// blockSize is about how many bytes of words are read at once: a few blocks are a page of the file.
	blockSize = 960
	// maxWordLength bounds a word, in bytes. Longer ones are known by their beginnings.
	maxWordLength = 32
	// searchedLength bounds what of a text is searched, in characters, of which one that is taken apart may be many. All accounts
	// of a partition wait for the fold that fills a chunk, be it of the longest texts there are, with no word in two of them.
	searchedLength = 20_000
)

// wordsIn calls word with each word of what of a job is searched.
func wordsIn(job *events.Job, word func(string)) {
	for _, s := range []string{job.Title, job.Company, job.Description} {
		eachWord(s, word)
	}
}

// eachWord calls word with each word of a text: a run of letters and digits, in lower case and without accents. In scripts
// that put no space between words each character is one. Of a long text it is the beginning.
func eachWord(text string, word func(string)) {
	if isASCII(text) {
		text = strings.ToLower(text[:min(len(text), searchedLength)])
	} else {
		text = folded(text)
	}
	for start := 0; start < len(text); {
		c, size := utf8.DecodeRuneInString(text[start:])
		end := start + size
		switch {
		case unspaced(c):
			word(text[start:end])
		case isWordRune(c):
			for end < len(text) {
				c, size := utf8.DecodeRuneInString(text[end:])
				if !isWordRune(c) || unspaced(c) {
					break
				}
				end += size
			}
			word(cutWord(text[start:end]))
		}
		start = end
	}
}

// isWordRune says whether a word has a character. A mark that takes a place of its own is one, as vowels are in Hindi.
func isWordRune(c rune) bool {
	if c < utf8.RuneSelf {
		return 'a' <= c && c <= 'z' || '0' <= c && c <= '9'
	}
	return unicode.IsLetter(c) || unicode.IsDigit(c) || unicode.Is(unicode.Mc, c)
}

func unspaced(c rune) bool {
	return c >= 0x0e00 && unicode.In(c, unicode.Han, unicode.Hiragana, unicode.Katakana, unicode.Thai, unicode.Lao, unicode.Khmer, unicode.Myanmar)
}

func isASCII(s string) bool {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return false
		}
	}
	return true
}

// folded takes characters apart, as NFKD does, drops the marks, and writes what is left in lower case: STRASSE, Straße and
// strasse become one. The syllables of Korean are put together again, so that each is one character.
func folded(s string) string {
	var b strings.Builder
	b.Grow(min(len(s), searchedLength))
	var apart norm.Iter
	apart.InitString(norm.NFKD, s)
	for characters := 0; characters < searchedLength && !apart.Done(); {
		for _, c := range string(apart.Next()) {
			characters++
			if unicode.Is(unicode.Mn, c) {
				continue
			}
			c = unicode.ToLower(unicode.ToUpper(c)) // of some letters several are one in upper case
			if plain, is := plainLetters[c]; is {
				b.WriteString(plain)
			} else {
				b.WriteRune(c)
			}
		}
	}
	return norm.NFC.String(b.String())
}

// plainLetters are for letters that cannot be taken apart, and that many write with these.
var plainLetters = map[rune]string{
	'ß': "ss", 'æ': "ae", 'œ': "oe", 'ø': "o", 'ł': "l", 'đ': "d", 'ð': "d", 'þ': "th", 'ħ': "h",
}

func cutWord(word string) string {
	if len(word) <= maxWordLength {
		return word
	}
	end := maxWordLength
	for !utf8.RuneStart(word[end]) {
		end--
	}
	return word[:end]
}

// looseJob is a job that is not in the word index: its sequence, and the data of the decision that has its content.
type looseJob struct {
	sequence uint64
	data     []byte
}

// index puts the loose jobs of an account into the next chunk of its word index.
func (b *batch) index(account *accountRow) error {
	if err := b.writeDecisions(); err != nil { // their data is read
		return err
	}
	var loose []looseJob
	rows, err := b.db.writes.unindexed.Query(account.name, account.indexed)
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var job looseJob
		err := rows.Scan(&job.sequence, &job.data)
		loose = append(loose, job)
		return err
	})
	if err != nil {
		return err
	}
	if len(loose) != chunkSize {
		return fmt.Errorf("%w: account %s has %d jobs to index, and not %d; %s", ErrMismatch, account.name, len(loose), chunkSize, b.db.remedy())
	}
	slices.SortFunc(loose, func(a, b looseJob) int { return cmp.Compare(a.sequence, b.sequence) })
	jobs, places, err := placesOf(loose)
	if err != nil {
		return err
	}
	account.indexed, account.loose = int64(b.to.Sequence), 0
	if _, err := b.db.writes.chunk.Exec(account.name, account.indexed, jobs); err != nil {
		return err
	}
	return b.writeWords(account, places)
}

// placesOf returns the sequences of the jobs of a chunk, each as its distance from the one before it, and the places of each
// word.
func placesOf(chunk []looseJob) (sequences []byte, places map[string][]byte, err error) {
	places, previous := map[string][]byte{}, uint64(0)
	for place, job := range chunk {
		sequences, previous = binary.AppendUvarint(sequences, job.sequence-previous), job.sequence
		var content struct{ Job events.Job }
		if err := json.Unmarshal(job.data, &content); err != nil {
			return nil, nil, err
		}
		wordsIn(&content.Job, func(word string) {
			if at := places[word]; len(at) == 0 || at[len(at)-1] != byte(place) {
				places[word] = append(at, byte(place))
			}
		})
	}
	return sequences, places, nil
}

// writeWords writes the words of a chunk in blocks. Each word stands there with its length before it, then the number of its
// places, and the places.
func (b *batch) writeWords(account *accountRow, places map[string][]byte) error {
	var first string
	var block []byte
	write := func() error {
		if len(block) == 0 {
			return nil
		}
		_, err := b.db.writes.block.Exec(account.name, account.indexed, first, block)
		block = nil
		return err
	}
	for _, word := range slices.Sorted(maps.Keys(places)) {
		if len(block) >= blockSize {
			if err := write(); err != nil {
				return err
			}
		}
		if len(block) == 0 {
			first = word
		}
		block = append(binary.AppendUvarint(block, uint64(len(word))), word...)
		block = append(binary.AppendUvarint(block, uint64(len(places[word]))), places[word]...)
	}
	return write()
}

// placesIn calls add with the places of the words of a block that begin with a prefix.
func placesIn(block []byte, prefix string, add func(place byte)) error {
	for len(block) > 0 {
		var word, places []byte
		var ok bool
		if word, block, ok = cutCounted(block); ok {
			places, block, ok = cutCounted(block)
		}
		if !ok {
			return fmt.Errorf("%w: a block of the word index cannot be read", ErrMismatch)
		}
		if bytes.HasPrefix(word, []byte(prefix)) {
			for _, place := range places {
				add(place)
			}
		} else if string(word) > prefix {
			return nil // as are all words after it
		}
	}
	return nil
}

// cutCounted cuts off bytes that stand behind their number.
func cutCounted(b []byte) (counted, rest []byte, ok bool) {
	n, size := binary.Uvarint(b)
	if size <= 0 || n > uint64(len(b)-size) {
		return nil, nil, false
	}
	return b[size : size+int(n)], b[size+int(n):], true
}
