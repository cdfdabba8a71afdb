package ledger

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

func TestCreateMakesThePairs(t *testing.T) {
	t.Parallel()
	for _, partitions := range []int{1, 4} {
		t.Run(fmt.Sprint(partitions), func(t *testing.T) {
			t.Parallel()
			_, nc := startEmbedded(t, t.TempDir())

			_, err := Open(within(t), nc)
			wantErr(t, err, ErrNoLedger)

			if !must[bool](t)(Create(within(t), nc, Spec{Partitions: partitions, Replicas: 1})) {
				t.Fatal("the first Create created nothing")
			}
			if must[bool](t)(Create(within(t), nc, Spec{Partitions: partitions, Replicas: 1})) {
				t.Fatal("the second Create created something")
			}

			js, want := jetstreamOf(t, nc), []string{}
			for p := range partitions {
				want = append(want, fmt.Sprintf("REQUESTS_%d", p), fmt.Sprintf("DECISIONS_%d", p))
				wantSettings(t, js, events.Requests, p)
				wantSettings(t, js, events.Decisions, p)
			}
			got := []string{}
			for name := range js.StreamNames(within(t)).Name() {
				got = append(got, name)
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("streams %v, want %v", got, want)
			}

			l := open(t, nc, Spec{Replicas: 1}) // 0 partitions: whatever it has
			if l.Partitions != partitions || l.ID == "" {
				t.Fatalf("opened %q with %d partitions", l.ID, l.Partitions)
			}
		})
	}
}

// wantSettings spells the documented settings out, on purpose not in terms of Spec.configs.
func wantSettings(t *testing.T, js jetstream.JetStream, kind events.Stream, partition int) {
	t.Helper()
	c := must[jetstream.Stream](t)(js.Stream(within(t), kind.Name(partition))).CachedInfo().Config
	if c.Storage != jetstream.FileStorage || c.Retention != jetstream.LimitsPolicy || c.Replicas != 1 {
		t.Errorf("%s: storage %v, retention %v, replicas %d", c.Name, c.Storage, c.Retention, c.Replicas)
	}
	if c.MaxAge != 0 || c.MaxMsgs != -1 || c.MaxBytes != -1 || c.MaxMsgsPerSubject != -1 || c.MaxMsgSize != -1 {
		t.Errorf("%s has a limit: %+v", c.Name, c)
	}
	subjects, atomic, persist := []string{fmt.Sprintf("requests.%d.>", partition)}, true, jetstream.DefaultPersistMode
	if kind == events.Decisions {
		subjects = []string{fmt.Sprintf("jobs.%d.>", partition), fmt.Sprintf("accounts.%d.>", partition)}
		atomic, persist = false, jetstream.AsyncPersistMode
	}
	if !slices.Equal(c.Subjects, subjects) || c.AllowAtomicPublish != atomic || c.PersistMode != persist {
		t.Errorf("%s: subjects %v, atomic %v, persist mode %v", c.Name, c.Subjects, c.AllowAtomicPublish, c.PersistMode)
	}
}

func TestCreateRefusesNumbersOfPartitions(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	for _, n := range []int{-1, MaxPartitions + 1} {
		if _, err := Create(within(t), nc, Spec{Partitions: n, Replicas: 1}); err == nil {
			t.Errorf("Create took %d partitions", n)
		}
	}
	open(t, nc, Spec{Partitions: 2, Replicas: 1})

	_, err := Create(within(t), nc, Spec{Partitions: 3, Replicas: 1})
	wantErr(t, err, ErrDrift)
	if want := "--partitions 2, not 3; the number never changes"; !strings.Contains(err.Error(), want) {
		t.Fatalf("error %q does not say %q", err, want)
	}
}

func TestOpenRefusesDrift(t *testing.T) {
	t.Parallel()
	edit := func(name string, change func(*jetstream.StreamConfig)) func(*testing.T, jetstream.JetStream) {
		return func(t *testing.T, js jetstream.JetStream) { editStream(t, js, name, change) }
	}
	remake := func(name string, change func(*jetstream.StreamConfig)) func(*testing.T, jetstream.JetStream) {
		return func(t *testing.T, js jetstream.JetStream) { remakeStream(t, js, name, change) }
	}
	for name, c := range map[string]struct {
		drift func(*testing.T, jetstream.JetStream)
		says  []string // what is wrong, and the remedy
	}{
		"subjects added": {
			edit("REQUESTS_0", func(c *jetstream.StreamConfig) { c.Subjects = append(c.Subjects, "more.>") }),
			[]string{"REQUESTS_0 has subjects", "`nats stream edit REQUESTS_0`"},
		},
		"max age": {
			edit("REQUESTS_1", func(c *jetstream.StreamConfig) { c.MaxAge = time.Hour }),
			[]string{"REQUESTS_1 has max age 1h0m0s, should be unlimited", "`nats stream edit REQUESTS_1`"},
		},
		"max messages": {
			edit("DECISIONS_0", func(c *jetstream.StreamConfig) { c.MaxMsgs = 1000 }),
			[]string{"DECISIONS_0 has a limit on messages", "`nats stream edit DECISIONS_0`"},
		},
		"max bytes": {
			edit("DECISIONS_0", func(c *jetstream.StreamConfig) { c.MaxBytes = 1 << 20 }),
			[]string{"DECISIONS_0 has a limit on messages or bytes", "`nats stream edit DECISIONS_0`"},
		},
		"max messages per subject": {
			edit("REQUESTS_0", func(c *jetstream.StreamConfig) { c.MaxMsgsPerSubject = 1 }),
			[]string{"REQUESTS_0 has a limit on messages", "`nats stream edit REQUESTS_0`"},
		},
		"max message size": {
			edit("REQUESTS_0", func(c *jetstream.StreamConfig) { c.MaxMsgSize = 100 }),
			[]string{"REQUESTS_0 has a limit on messages", "`nats stream edit REQUESTS_0`"},
		},
		"no atomic publish": {
			edit("REQUESTS_0", func(c *jetstream.StreamConfig) { c.AllowAtomicPublish = false }),
			[]string{"REQUESTS_0 has allow atomic publish false, should be true", "`nats stream edit REQUESTS_0`"},
		},
		"sealed": {
			edit("REQUESTS_0", func(c *jetstream.StreamConfig) { c.Sealed = true }),
			[]string{"REQUESTS_0 has a mirror, source, transform, seal"},
		},
		"no acks": {
			edit("REQUESTS_0", func(c *jetstream.StreamConfig) { c.NoAck = true }),
			[]string{"REQUESTS_0 has a mirror, source, transform, seal or no-ack", "`nats stream edit REQUESTS_0`"},
		},
		"subject transform": {
			edit("DECISIONS_1", func(c *jetstream.StreamConfig) {
				c.SubjectTransform = &jetstream.SubjectTransformConfig{Source: "jobs.1.>", Destination: "jobs.0.>"}
			}),
			[]string{"DECISIONS_1 has a mirror, source, transform", "`nats stream edit DECISIONS_1`"},
		},
		"persist mode": {
			remake("DECISIONS_0", func(c *jetstream.StreamConfig) { c.PersistMode = jetstream.DefaultPersistMode }),
			[]string{"DECISIONS_0 has persist mode", "`nats stream edit DECISIONS_0`"},
		},
		"storage": {
			remake("REQUESTS_0", func(c *jetstream.StreamConfig) { c.Storage = jetstream.MemoryStorage }),
			[]string{"REQUESTS_0 has storage", "`nats stream edit REQUESTS_0`"},
		},
		"another partition count": {
			edit("DECISIONS_0", func(c *jetstream.StreamConfig) { c.Metadata[metadataPartitions] = "3" }),
			[]string{"DECISIONS_0 has partitions 3, should be 2", "`nats stream edit DECISIONS_0`"},
		},
		"requests missing": {
			func(t *testing.T, js jetstream.JetStream) { deleteStream(t, js, "REQUESTS_0") },
			[]string{"stream REQUESTS_0 is missing; restore it from a backup"},
		},
		"decisions missing": {
			func(t *testing.T, js jetstream.JetStream) { deleteStream(t, js, "DECISIONS_1") },
			[]string{"stream DECISIONS_1 is missing; run `projector init --partitions 2`"},
		},
		"two ledgers": {
			func(t *testing.T, js jetstream.JetStream) {
				must[jetstream.Stream](t)(js.CreateStream(within(t), jetstream.StreamConfig{
					Name: "REQUESTS_7", Subjects: []string{"requests.7.>"},
					Metadata: map[string]string{metadataLedger: "another", metadataPartitions: "8"},
				}))
			},
			[]string{"streams of two ledgers", "another", "remove those of one"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, nc := startEmbedded(t, t.TempDir())
			open(t, nc, Spec{Partitions: 2, Replicas: 1})

			c.drift(t, jetstreamOf(t, nc))

			_, err := Open(within(t), nc)
			wantErr(t, err, ErrDrift)
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
		})
	}
}

func TestDriftSetBackIsMended(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	open(t, nc, Spec{Replicas: 1})
	js := jetstreamOf(t, nc)

	editStream(t, js, "REQUESTS_0", func(c *jetstream.StreamConfig) { c.MaxAge, c.AllowAtomicPublish = time.Hour, false })
	_, err := Open(within(t), nc)
	wantErr(t, err, ErrDrift)

	editStream(t, js, "REQUESTS_0", func(c *jetstream.StreamConfig) { c.MaxAge, c.AllowAtomicPublish = 0, true })
	open(t, nc, Spec{Replicas: 1})
}

func TestOpenLeavesToTheOperatorWhatEndangersNoMessage(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	open(t, nc, Spec{Replicas: 1})
	js := jetstreamOf(t, nc)
	editStream(t, js, "REQUESTS_0", func(c *jetstream.StreamConfig) {
		c.Description, c.Compression, c.DenyDelete = "what was asked", jetstream.S2Compression, true
	})
	must[jetstream.Stream](t)(js.CreateStream(within(t), jetstream.StreamConfig{Name: "ORDERS", Subjects: []string{"orders.>"}}))

	open(t, nc, Spec{Replicas: 1})
}

func TestCreateCompletesAnInterruptedCreation(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	id := open(t, nc, Spec{Partitions: 3, Replicas: 1}).ID
	js := jetstreamOf(t, nc)
	for _, name := range []string{"DECISIONS_1", "REQUESTS_2", "DECISIONS_2"} { // as if it had died after REQUESTS_1
		deleteStream(t, js, name)
	}
	_, err := Open(within(t), nc)
	wantErr(t, err, ErrDrift)

	if !must[bool](t)(Create(within(t), nc, Spec{Partitions: 3, Replicas: 1})) {
		t.Fatal("Create created nothing")
	}
	if l := open(t, nc, Spec{Replicas: 1}); l.ID != id || l.Partitions != 3 {
		t.Fatalf("ledger %s with %d partitions, want %s with 3", l.ID, l.Partitions, id)
	}
}

func TestCreateDoesNotReplaceWhatAUsedLedgerLost(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Partitions: 2, Replicas: 1})
	must[events.Position](t)(l.Append(within(t), request("1")))
	deleteStream(t, jetstreamOf(t, nc), "DECISIONS_1")

	_, err := Create(within(t), nc, Spec{Partitions: 2, Replicas: 1})

	wantErr(t, err, ErrDrift)
	if want := "stream DECISIONS_1 is missing; restore it from a backup"; !strings.Contains(err.Error(), want) {
		t.Fatalf("error %q does not say %q", err, want)
	}
}

func editStream(t *testing.T, js jetstream.JetStream, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	c := must[jetstream.Stream](t)(js.Stream(within(t), name)).CachedInfo().Config
	change(&c)
	must[jetstream.Stream](t)(js.UpdateStream(within(t), c))
}

func remakeStream(t *testing.T, js jetstream.JetStream, name string, change func(*jetstream.StreamConfig)) {
	t.Helper()
	c := must[jetstream.Stream](t)(js.Stream(within(t), name)).CachedInfo().Config
	change(&c)
	deleteStream(t, js, name)
	must[jetstream.Stream](t)(js.CreateStream(within(t), c))
}

func deleteStream(t *testing.T, js jetstream.JetStream, name string) {
	t.Helper()
	if err := js.DeleteStream(within(t), name); err != nil {
		t.Fatal(err)
	}
}
