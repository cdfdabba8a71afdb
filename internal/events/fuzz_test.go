package events

import (
	"errors"
	"reflect"
	"slices"
	"testing"
)

// FuzzDecodeRequest: whatever stands in REQUESTS_p is read without panic; what is accepted is written again as a
// message that reads the same.
func FuzzDecodeRequest(f *testing.F) {
	add := func(m Message) {
		f.Add(m.Subject, header(m, headerID), header(m, headerType), header(m, headerTime), m.Data)
	}
	for _, fixture := range requestFixtures() {
		add(fixture.Message(fixturePartitions))
	}
	for _, tt := range malformedCases() {
		_, m := requestFixtureOf(f, tt.of)
		m = m.clone()
		tt.change(&m)
		add(m)
	}
	f.Fuzz(func(t *testing.T, subject, id, ceType, ceTime string, data []byte) {
		m := Message{Subject: subject, Sequence: 7, Data: data, Header: map[string][]string{
			headerID: {id}, headerType: {ceType}, headerTime: {ceTime},
		}}
		if m.Void() {
			return
		}
		r, err := DecodeRequest(m, fixturePartition, fixturePartitions)
		if err != nil {
			if !errors.Is(err, ErrUnknownType) || newRequestBody(ceType) != nil {
				t.Fatalf("%q: %v", ceType, err)
			}
			return
		}
		if _, ok := r.Body.(*Malformed); ok {
			checkRefusalCanBeWritten(t, &r)
			return
		}
		again := r.Message(fixturePartitions)
		again.Sequence = 7
		back, err := DecodeRequest(again, fixturePartition, fixturePartitions)
		if err != nil {
			t.Fatal(err)
		}
		back.Digest = r.Digest // of other bytes
		if !reflect.DeepEqual(back, r) {
			t.Fatalf("written again\n%s\nit reads as\n%+v %+v\nwant\n%+v %+v", again.text(), back, back.Body, r, r.Body)
		}
	})
}

// FuzzDecodeDecision: whatever stands in DECISIONS_p is read without panic; what is accepted is written again as a
// message that reads the same, but for its data's spelling, and an invented digest does not verify.
func FuzzDecodeDecision(f *testing.F) {
	for _, fixture := range decisionFixtures() {
		m := fixture.Message()
		f.Add(header(m, headerAccount), header(m, headerRequestID), header(m, headerType), header(m, headerTime), m.Data)
		f.Add("", "", header(m, headerType), header(m, headerTime), []byte("{}"))
	}
	f.Fuzz(func(t *testing.T, account, requestID, ceType, ceTime string, data []byte) {
		digest := fixturePayload.String()
		m := Message{Subject: "jobs.6.demo.captured", Sequence: 1234, Data: data, Header: map[string][]string{
			headerID: {"6-1234"}, headerAccount: {account}, headerRequestID: {requestID}, headerType: {ceType}, headerTime: {ceTime},
			headerRequestDigest: {digest}, headerDigest: {digest},
		}}
		d, err := DecodeDecision(m, fixturePartition)
		if err != nil {
			if errors.Is(err, ErrUnknownType) && newDecisionBody(ceType) != nil {
				t.Fatalf("%q: %v", ceType, err)
			}
			return
		}
		if d.Verify(fixturePrevious) == nil {
			t.Fatal("an invented digest verifies")
		}
		if isIncomplete(d.Body) {
			return
		}
		d.Seal(fixturePrevious)
		back, err := DecodeDecision(d.Message(), fixturePartition)
		if err != nil || !reflect.DeepEqual(back, d) {
			t.Fatalf("written again\n%s\nit reads as\n%+v %+v, %v\nwant\n%+v %+v", d.Message().text(), back, back.Body, err, d, d.Body)
		}
		if err := back.Verify(fixturePrevious); err != nil {
			t.Fatal(err)
		}
	})
}

// isIncomplete says whether a body lacks what it cannot be written without. The rules make no such decision; one that
// was made up is read, and found by its digest.
func isIncomplete(body DecisionBody) bool {
	switch b := body.(type) {
	case *JobCaptured:
		return b.Month == ""
	case *JobCaptureDuplicated:
		return b.Month == ""
	case *JobCaptureRejected:
		return b.Month == ""
	case *JobCaptureRepeated:
		return b.Month == "" || b.First.Sequence == 0
	case *MonthArchived:
		return b.Month == ""
	case *AccountErased:
		return slices.ContainsFunc(b.Months, func(m ErasedMonth) bool { return m.Month == "" })
	}
	return false
}
