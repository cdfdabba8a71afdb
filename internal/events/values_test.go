package events

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestPositionForm(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Position
	}{
		{"0-1", Position{0, 1}},
		{"0-1234", Position{0, 1234}},
		{"15-9223372036854775807", Position{15, math.MaxInt64}},
		{"2147483647-1", Position{math.MaxInt32, 1}},
	} {
		got, err := ParsePosition(tt.text)
		if err != nil || got != tt.want || got.String() != tt.text {
			t.Errorf("ParsePosition(%q) = %v, %v, want %v", tt.text, got, err, tt.want)
		}
	}
	for _, text := range []string{
		"", "-", "0", "0-", "-1", "0-0", "0-07", "00-7", "+0-7", "0-+7", "0--7", "0-7-1", " 0-7", "0-7 ", "0x0-7", "0-1_000", "0-7\n",
		"0-9223372036854775808", "2147483648-1", "0-18446744073709551616", "a-b", "٠-٧",
	} {
		if got, err := ParsePosition(text); err == nil || got != (Position{}) {
			t.Errorf("ParsePosition(%q) = %v, %v, want an error and nothing", text, got, err)
		}
	}
}

func TestPositionRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPosition(t, rapid.IntRange(0, math.MaxInt32).Draw(t, "partition"))
		data, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var back Position
		if err := json.Unmarshal(data, &back); err != nil || back != p {
			t.Fatalf("%s reads as %v, %v", data, back, err)
		}
	})
}

func TestMonths(t *testing.T) {
	at := func(s string) time.Time {
		instant, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatal(err)
		}
		return instant
	}
	for _, tt := range []struct {
		at          string
		month, next Month
	}{
		{"2026-11-30T23:59:59.999999999Z", "2026-11", "2026-12"},
		{"2026-12-01T00:00:00Z", "2026-12", "2027-01"},
		{"2026-12-31T23:59:59.999999999Z", "2026-12", "2027-01"},
		{"2027-01-01T00:00:00Z", "2027-01", "2027-02"},
		{"2027-01-31T12:00:00Z", "2027-01", "2027-02"}, // a month later than 31 January is not 3 March
		{"2028-02-29T12:00:00Z", "2028-02", "2028-03"},
		{"2026-12-01T00:30:00+01:00", "2026-11", "2026-12"}, // months are those of UTC
		{"2026-11-30T23:30:00-01:00", "2026-12", "2027-01"},
		{"0001-01-01T00:00:00Z", "0001-01", "0001-02"},
		{"9999-11-30T00:00:00Z", "9999-11", "9999-12"},
	} {
		month := MonthOf(at(tt.at))
		if month != tt.month || month.Next() != tt.next {
			t.Errorf("%s lies in %s before %s, want %s before %s", tt.at, month, month.Next(), tt.month, tt.next)
		}
		if parsed, err := ParseMonth(string(tt.month)); err != nil || parsed != tt.month {
			t.Errorf("ParseMonth(%q) = %q, %v", tt.month, parsed, err)
		}
		if start := month.Start(); start.After(at(tt.at)) || !month.Next().Start().After(at(tt.at)) ||
			start.Location() != time.UTC || !strings.HasSuffix(formatTime(start), "-01T00:00:00Z") {
			t.Errorf("%s starts at %s", month, start)
		}
	}
	for _, text := range []string{"", "2026", "2026-1", "2026-00", "2026-13", "2026-11-01", "26-11", "02026-11", "10000-01", "-001-01", " 2026-11", "2026-11 ", "2026/11"} {
		if got, err := ParseMonth(text); err == nil || got != "" {
			t.Errorf("ParseMonth(%q) = %q, %v, want an error and nothing", text, got, err)
		}
		if start := Month(text).Start(); !start.IsZero() {
			t.Errorf("%q starts at %s, want the zero time", text, start)
		}
	}
}

func TestMonthsSortAsText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawTime(t, "a"), drawTime(t, "b")
		if MonthOf(a) < MonthOf(b) != MonthOf(a).Start().Before(MonthOf(b).Start()) {
			t.Fatalf("%s and %s", MonthOf(a), MonthOf(b))
		}
	})
}

func TestAccountNames(t *testing.T) {
	for _, name := range []string{"a", "demo", "acme-2", "_", "-", "0", strings.Repeat("z", 64)} {
		if err := ValidAccount(name); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", strings.Repeat("z", 65), "Demo", "a.b", "a b", "a*", ">", "ä", "a\x00", "\xff", "a/b", "~", "a\n"} {
		if ValidAccount(name) == nil {
			t.Errorf("%q is taken for an account's name", name)
		}
	}
}

// TestPartitionsNeverChange compares PartitionOf with a table: an account that moved to another partition would be
// two accounts.
func TestPartitionsNeverChange(t *testing.T) {
	golden, err := os.ReadFile(filepath.Join("testdata", "partitions.txt"))
	if err != nil {
		t.Fatal(err)
	}
	rows := strings.Split(strings.TrimSpace(string(golden)), "\n")
	counts := strings.Fields(rows[0])[1:]
	for _, row := range rows[1:] {
		fields := strings.Fields(row)
		if len(fields) != len(counts)+1 {
			t.Fatalf("not a row: %q", row)
		}
		for i, count := range counts {
			partitions, _ := strconv.Atoi(count)
			if got := strconv.Itoa(PartitionOf(fields[0], partitions)); got != fields[i+1] {
				t.Errorf("%s lies in partition %s of %s, want %s", fields[0], got, count, fields[i+1])
			}
		}
	}
	if len(rows) < 9 || len(counts) < 6 {
		t.Errorf("the table has %d accounts and %d counts", len(rows)-1, len(counts))
	}
}

func TestPartitionsAreInRange(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		partitions := rapid.IntRange(1, 1<<16).Draw(t, "partitions")
		if p := PartitionOf(drawAccount(t), partitions); p < 0 || p >= partitions {
			t.Fatalf("partition %d of %d", p, partitions)
		}
	})
}

// concatenatedDigest digests parts as Hash says it does, written down once more.
func concatenatedDigest(parts ...string) Digest {
	var b bytes.Buffer
	for _, part := range parts {
		n := len(part)
		b.Write([]byte{0, 0, 0, 0, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		b.WriteString(part)
	}
	return sha256.Sum256(b.Bytes())
}

func TestHash(t *testing.T) {
	if got := Hash().String(); got != "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" { // SHA-256 of nothing
		t.Errorf("the digest of nothing is %s", got)
	}
	rapid.Check(t, func(t *rapid.T) {
		lists := rapid.SliceOfN(rapid.SliceOfN(rapid.StringN(0, 3, 12), 0, 4), 2, 2).Draw(t, "lists")
		var digests [2]Digest
		for i, list := range lists {
			var parts [][]byte
			for _, part := range list {
				parts = append(parts, []byte(part))
			}
			if digests[i] = Hash(parts...); digests[i] != concatenatedDigest(list...) {
				t.Fatalf("Hash(%q) = %s", list, digests[i])
			}
		}
		if slices.Equal(lists[0], lists[1]) != (digests[0] == digests[1]) {
			t.Fatalf("%q and %q have one digest", lists[0], lists[1])
		}
	})
	if Hash([]byte("ab"), []byte("c")) == Hash([]byte("a"), []byte("bc")) || Hash([]byte("a")) == Hash([]byte("a"), nil) {
		t.Error("where a part ends does not enter the digest")
	}
}

func TestDigestForm(t *testing.T) {
	d := Hash([]byte("x"))
	if got, err := ParseDigest(d.String()); err != nil || got != d {
		t.Errorf("ParseDigest(%s) = %s, %v", d, got, err)
	}
	valid := d.String()
	for _, text := range []string{"", valid[1:], valid + "0", valid[:63] + "g", valid[:62] + "0x", strings.Repeat(" ", 64), strings.ToUpper(valid)} {
		if got, err := ParseDigest(text); err == nil || got != (Digest{}) {
			t.Errorf("ParseDigest(%q) = %s, %v, want an error and nothing", text, got, err)
		}
	}
	var back Digest
	if data, err := json.Marshal(d); err != nil || json.Unmarshal(data, &back) != nil || back != d {
		t.Errorf("%s as JSON reads as %s", d, back)
	}
}

func TestEscapeForm(t *testing.T) {
	for text, want := range map[string]string{
		"":            "",
		"plain-id_1~": "plain-id_1~",
		"a b":         "a%20b",
		`"quoted"`:    "%22quoted%22",
		"100%":        "100%25",
		"ü":           "%C3%BC",
		"🗼":           "%F0%9F%97%BC",
		"a\r\nb\x7f":  "a%0D%0Ab%7F",
		"%41":         "%2541",
	} {
		if got := escape(text); got != want {
			t.Errorf("escape(%q) = %q, want %q", text, got, want)
		}
	}
	for text, want := range map[string]string{"%c3%bc": "ü", "%41": "A", "ü": "ü", "a b": "a b"} { // as other writers may
		if got, err := unescape(text); err != nil || got != want {
			t.Errorf("unescape(%q) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"%", "%4", "a%", "a%2", "%zz", "%4z", "%z4", "%+1", "%ff", "%C3", "%ED%A0%80", "\xff", "\xff%41"} {
		if got, err := unescape(text); err == nil || got != "" {
			t.Errorf("unescape(%q) = %q, %v, want an error and nothing", text, got, err)
		}
	}
}

func TestEscapeRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.StringMatching(`[%" a-fA-F0-9\x00-\x1f\x7fü]*`)).Draw(t, "text")
		escaped := escape(text)
		checkHeaderValue(t, "escaped", escaped)
		if back, err := unescape(escaped); err != nil || back != text {
			t.Fatalf("%q escaped is %q, and back %q, %v", text, escaped, back, err)
		}
	})
}

func TestUnescapeGivesUTF8(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := string(rapid.SliceOf(rapid.OneOf(rapid.Byte(), rapid.SampledFrom([]byte("%0123456789abcdefABCDEF")))).Draw(t, "bytes"))
		got, err := unescape(text)
		if err == nil && !utf8.ValidString(got) || err != nil && got != "" {
			t.Fatalf("unescape(%q) = %q, %v", text, got, err)
		}
	})
}

func TestSumOfDigests(t *testing.T) {
	a, b, c := Hash([]byte("a")), Hash([]byte("b")), Hash([]byte("c"))
	if a.Plus(b).Plus(c) != c.Plus(a).Plus(b) {
		t.Error("a sum depends on the order")
	}
	if a.Plus(b).Minus(b) != a || a.Minus(b).Plus(b) != a {
		t.Error("what was added cannot be taken out again")
	}
	one := Digest{31: 1}
	if carried := (Digest{}).Minus(one); carried.String() != strings.Repeat("f", 64) || carried.Plus(one) != (Digest{}) {
		t.Errorf("0 - 1 = %s", carried)
	}
}

func TestAVoidIsReadAsErased(t *testing.T) {
	void := Message{Sequence: 7}
	r, err := DecodeRequest(void, fixturePartition, fixturePartitions)
	if want := (Request{Position: Position{fixturePartition, 7}, Body: &Erased{}}); err != nil || !reflect.DeepEqual(r, want) {
		t.Errorf("request %+v, %v", r, err)
	}
	d, err := DecodeDecision(void, fixturePartition)
	if want := (Decision{Position: Position{fixturePartition, 7}, Body: &Erased{}}); err != nil || !reflect.DeepEqual(d, want) {
		t.Errorf("decision %+v, %v", d, err)
	}
}

func TestSubjects(t *testing.T) {
	for want, got := range map[string][]string{
		"requests.6.demo.*":           {Requests.SubjectOf("demo", 6)},
		"*.6.demo.*":                  {Decisions.SubjectOf("demo", 6)},
		"*.6.~.*":                     {Decisions.SubjectOf("", 6)},
		"accounts.6.~.month_archived": {ArchivesSubject(6)},
		"accounts.6.*.erased":         {ErasuresSubject(6)},
		"requests.6.~.month_close":    {ClosesSubject(6)},
	} {
		if strings.Join(got, " ") != want {
			t.Errorf("subjects %q, want %q", got, want)
		}
	}
	for _, f := range requestFixtures() {
		if m := f.Message(fixturePartitions); m.Remains() != (f.name == TypeAccountEraseRequested) {
			t.Errorf("%s remains: %t", m.Subject, m.Remains())
		}
		m := f.Message(fixturePartitions)
		delete(m.Header, headerID)
		if m.Remains() {
			t.Errorf("%s remains, though it is refused", m.Subject)
		}
	}
	for _, f := range decisionFixtures() {
		if m := f.Message(); m.Remains() != (f.name == TypeAccountErased) {
			t.Errorf("%s remains: %t", m.Subject, m.Remains())
		}
	}
}
