package events

import "testing"

func BenchmarkEncodeDecision(b *testing.B) {
	d := decisionFixtures()[0].Decision
	b.ReportAllocs()
	for b.Loop() {
		d.Seal(fixturePrevious)
		_ = d.Message()
	}
}

func BenchmarkDecodeDecision(b *testing.B) {
	m := decisionFixtures()[0].Message()
	b.ReportAllocs()
	for b.Loop() {
		d, err := DecodeDecision(m, fixturePartition)
		if err != nil || d.Verify(fixturePrevious) != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEncodeRequest(b *testing.B) {
	r := requestFixtures()[0].Request
	b.ReportAllocs()
	for b.Loop() {
		_ = r.Message(fixturePartitions)
	}
}

func BenchmarkDecodeRequest(b *testing.B) {
	r, m := requestFixtureOf(b, TypeJobCaptureRequested)
	b.ReportAllocs()
	for b.Loop() {
		if got, err := DecodeRequest(m, r.Position.Partition, fixturePartitions); err != nil || got.Digest != r.Digest {
			b.Fatal(err)
		}
	}
}
