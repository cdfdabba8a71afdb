package ledger

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// readTo returns what ReadTo yields.
func subjectsOf(account string) []string {
	if account == "" {
		return nil
	}
	return []string{events.Requests.SubjectOf(account, 0)}
}

func readTo(t *testing.T, l *Ledger, account string, after, last uint64) (messages []events.Message) {
	t.Helper()
	for batch, err := range l.ReadTo(within(t), events.Requests, 0, subjectsOf(account), after, last) {
		if err != nil {
			t.Fatal(err)
		}
		if len(batch) == 0 || len(batch) > maxRead {
			t.Errorf("a batch of %d", len(batch))
		}
		messages = append(messages, batch...)
	}
	return messages
}

func TestReadToEndsWhereItIsTold(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const n = 1200
	wantRecorded(t, l, take(t, appendAll(t, l, "r", n), n))
	for _, c := range [][2]uint64{{0, n}, {0, 1}, {0, maxRead}, {maxRead - 1, maxRead + 1}, {1, n - 1}, {n - 1, n}} {
		wantSequences(t, readTo(t, l, "", c[0], c[1]), c[0]+1, c[1])
	}
	if got := readTo(t, l, "", n, n); len(got) != 0 {
		t.Errorf("read %d after the last", len(got))
	}
	if is, want := readTo(t, l, "", 4, 5)[0], read(t, l, events.Requests, 4, 5)[0]; fmt.Sprint(is) != fmt.Sprint(want) {
		t.Errorf("read %v, Read gives %v", is, want)
	}
}

func TestReadToTakesLargeMessagesInSmallBatches(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Replicas: 1})
	const n, size = 24, 600 << 10
	for range n {
		must[*jetstream.PubAck](t)(jetstreamOf(t, nc).Publish(within(t), "requests.0.demo.job_capture", make([]byte, size)))
	}
	read := 0
	for batch, err := range l.ReadTo(within(t), events.Requests, 0, nil, 0, n) {
		if err != nil {
			t.Fatal(err)
		}
		if len(batch)*size >= maxReadLen+size {
			t.Errorf("a batch of %d, which are %d bytes", len(batch), len(batch)*size)
		}
		read += len(batch)
	}
	if read != n {
		t.Errorf("read %d of %d", read, n)
	}
}

// Removed messages are left out; at the end too, where there is nothing to wait for.
func TestReadToLeavesOutWhatIsRemoved(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Replicas: 1})
	for i := range 8 {
		must[events.Position](t)(l.Append(within(t), request(fmt.Sprint(i))))
	}
	stream := must[jetstream.Stream](t)(jetstreamOf(t, nc).Stream(within(t), "REQUESTS_0"))
	for _, sequence := range []uint64{1, 4, 7, 8} {
		if err := stream.DeleteMsg(within(t), sequence); err != nil {
			t.Fatal(err)
		}
	}
	for _, account := range []string{"", "demo"} {
		got := fmt.Sprint(sequences(readTo(t, l, account, 0, 8)))
		if got != "[2 3 5 6]" {
			t.Errorf("of %q: %s", account, got)
		}
	}
	if got := readTo(t, l, "", 6, 8); len(got) != 0 {
		t.Errorf("read %v, all of which are removed", sequences(got))
	}
}

// What is damaged on the disk of the server counts as pending there, and never arrives.
func TestReadToLeavesOutWhatIsDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, e := openEmbedded(t, dir)
	for i, account := range []string{"anna", "anna", "bob", "anna", "bob", "anna", "bob"} {
		r := request(fmt.Sprintf("request-%d", i+1))
		r.Account = account
		must[events.Position](t)(l.Append(within(t), r))
	}
	l.Close()
	e.Close()
	blocks := must[[]string](t)(filepath.Glob(filepath.Join(e.blocks("REQUESTS_0"), "*.blk")))
	content := must[[]byte](t)(os.ReadFile(blocks[0]))
	for _, id := range []string{"request-2", "request-6", "request-7"} {
		content[bytes.Index(content, []byte(id))] ^= 1
	}
	if err := os.WriteFile(blocks[0], content, 0o600); err != nil {
		t.Fatal(err)
	}
	l, _ = openEmbedded(t, dir)
	for account, want := range map[string]string{"": "[1 3 4 5]", "anna": "[1 4]", "bob": "[3 5]"} {
		if got := fmt.Sprint(sequences(readTo(t, l, account, 0, 7))); got != want {
			t.Errorf("of %q: %s, want %s", account, got, want)
		}
	}
}

// A server that is slow has what it counts all the same.
func TestReadToWaitsForASlowServer(t *testing.T) {
	t.Parallel()
	s := startNATS(t, server.Options{StoreDir: t.TempDir()})
	slow := newLine(t, s)
	l := open(t, dial(t, slow.address), Spec{Replicas: 1})
	const n = 4 * maxRead
	wantRecorded(t, l, take(t, appendAll(t, l, "r", n), n))
	var got []events.Message
	for batch, err := range l.ReadTo(within(t), events.Requests, 0, nil, 0, n) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, batch...); len(got) == maxRead {
			slow.toClient.Lock()
			time.AfterFunc(3*stallTimeout/2, slow.toClient.Unlock)
		}
	}
	wantSequences(t, got, 1, n)
}

// behind has the consumers of a stream be with a server that has none of its messages yet.
type behind struct{ jetstream.JetStream }

func (b behind) OrderedConsumer(ctx context.Context, stream string, cfg jetstream.OrderedConsumerConfig) (jetstream.Consumer, error) {
	consumer, err := b.JetStream.OrderedConsumer(ctx, stream, cfg)
	return pendingNothing{consumer}, err
}

type pendingNothing struct{ jetstream.Consumer }

func (c pendingNothing) CachedInfo() *jetstream.ConsumerInfo {
	info := *c.Consumer.CachedInfo()
	info.NumPending = 0
	return &info
}

func TestReadToWaitsForAServerThatIsBehind(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	const n = 2 * maxRead
	wantRecorded(t, l, take(t, appendAll(t, l, "r", n), n))
	l.js, l.Replicas = behind{l.js}, 3
	wantSequences(t, readTo(t, l, "", 1, n), 2, n)
	wantSequences(t, readTo(t, l, "demo", 1, n), 2, n)
	if got := readTo(t, l, "nobody", 0, n); len(got) != 0 {
		t.Errorf("read %d of nobody", len(got))
	}
}

func TestReadToTellsAccountsApart(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Replicas: 1})
	for i, account := range []string{"anna", "bob", "anna", "anna-2", "ann", "bob", "anna"} {
		r := request(fmt.Sprint(i))
		r.Account = account
		must[events.Position](t)(l.Append(within(t), r))
	}
	must[*jetstream.PubAck](t)(jetstreamOf(t, nc).Publish(within(t), "requests.0.anna.of.nobody", nil)) // as it is decided
	for account, want := range map[string]string{"anna": "[1 3 7]", "bob": "[2 6]", "anna-2": "[4]", "ann": "[5]", "nobody": "[]"} {
		if got := fmt.Sprint(sequences(readTo(t, l, account, 0, 8))); got != want {
			t.Errorf("of %s: %s, want %s", account, got, want)
		}
	}
	if got := fmt.Sprint(sequences(readTo(t, l, "anna", 1, 6))); got != "[3]" {
		t.Errorf("within: %s", got)
	}
}

func TestReadToEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l := newLedger(t)
	wantRecorded(t, l, take(t, appendAll(t, l, "r", 3*maxRead), 3*maxRead))
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	var last error
	for batch, err := range l.ReadTo(ctx, events.Requests, 0, nil, 0, 3*maxRead) {
		cancel()
		if last = err; err == nil && batch[len(batch)-1].Sequence == 3*maxRead {
			t.Fatal("it went on to the end")
		}
	}
	wantErr(t, last, context.Canceled)
}

func TestReadToLeavesNoConsumer(t *testing.T) {
	t.Parallel()
	_, nc := startEmbedded(t, t.TempDir())
	l := open(t, nc, Spec{Replicas: 1})
	wantRecorded(t, l, take(t, appendAll(t, l, "r", 2*maxRead), 2*maxRead))
	readTo(t, l, "", 0, 2*maxRead)
	readTo(t, l, "nobody", 0, 2*maxRead)
	for range l.ReadTo(within(t), events.Requests, 0, nil, 0, 2*maxRead) {
		break
	}
	stream := must[jetstream.Stream](t)(jetstreamOf(t, nc).Stream(within(t), "REQUESTS_0"))
	if n := stream.CachedInfo().State.Consumers; n != 0 {
		t.Errorf("the server keeps %d consumers of readers that ended", n)
	}
}
