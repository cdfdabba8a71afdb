package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudevents/sdk-go/v2/binding"
	"github.com/cloudevents/sdk-go/v2/binding/spec"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jobtally/internal/events"
)

// headerPrefix begins the header of each attribute, in the NATS binding of CloudEvents.
const headerPrefix = "ce-"

// binaryMessage has the SDK read a message in binary mode. Its own packages for NATS read the structured mode alone, or are
// not to be had; which attribute is which, and of what type, is all the SDK's.
type binaryMessage struct{ jetstream.Msg }

var _ binding.MessageMetadataReader = binaryMessage{}

func (binaryMessage) ReadEncoding() binding.Encoding { return binding.EncodingBinary }

func (binaryMessage) ReadStructured(context.Context, binding.StructuredWriter) error {
	return binding.ErrNotStructured
}

func (m binaryMessage) version() spec.Version {
	return spec.WithPrefix(headerPrefix).Version(m.Headers().Get(headerPrefix + "specversion"))
}

// GetAttribute returns an attribute by its kind, as the SDK asks for it.
func (m binaryMessage) GetAttribute(kind spec.Kind) (spec.Attribute, any) {
	attribute := m.version().AttributeFromKind(kind)
	return attribute, m.GetExtension(strings.TrimPrefix(attribute.PrefixedName(), headerPrefix))
}

// GetExtension returns what a header says: percent-encoded, in the binding.
func (m binaryMessage) GetExtension(name string) any {
	value, err := url.PathUnescape(m.Headers().Get(headerPrefix + name))
	if err != nil {
		return err
	}
	return value
}

func (m binaryMessage) ReadBinary(_ context.Context, w binding.BinaryWriter) (err error) {
	for header := range m.Headers() {
		name, is := strings.CutPrefix(header, headerPrefix)
		if !is {
			continue
		}
		if attribute := m.version().Attribute(header); attribute != nil {
			err = w.SetAttribute(attribute, m.GetExtension(name))
		} else {
			err = w.SetExtension(name, m.GetExtension(name))
		}
		if err != nil {
			return err
		}
	}
	return w.SetData(bytes.NewReader(m.Data()))
}

// TestTheSDKOfCloudEventsReadsEveryDecision publishes each decision that is pinned by a golden file, and has a consumer's
// connection and the public SDK read it.
func TestTheSDKOfCloudEventsReadsEveryDecision(t *testing.T) {
	t.Parallel()
	const partition = 6 // of the golden files
	e, nc := startEmbedded(t, t.TempDir())
	must[bool](t)(Create(within(t), nc, Spec{Partitions: partition + 1, Replicas: 1}))
	l := must[*Ledger](t)(e.Open(within(t), nc))
	t.Cleanup(l.Close)
	golden := goldenDecisions(t)
	for _, m := range golden {
		must[*jetstream.PubAck](t)(l.js.PublishMsg(within(t), m))
	}
	user := ConsumerUser{Name: "sdk", Partitions: []int{partition}, Password: events.Hash([]byte("secret")), Created: time.Now()}
	if err := AddConsumerUser(e.dir, &user); err != nil {
		t.Fatal(err)
	}
	if err := l.AddConsumer(within(t), &Consumer{Name: "sdk"}, []events.Position{{Partition: partition}}); err != nil {
		t.Fatal(err)
	}
	js := must[jetstream.JetStream](t)(jetstream.NewWithDomain(mustDialConsumer(t, e, "sdk", "secret"), Domain))
	c := must[jetstream.Consumer](t)(js.Consumer(within(t), events.Decisions.Name(partition), "sdk"))
	types := map[string]bool{}
	for _, want := range golden {
		got := must[jetstream.Msg](t)(c.Next(jetstream.FetchContext(within(t))))
		read := must[*event.Event](t)(binding.ToEvent(within(t), binaryMessage{got}))
		if err := got.DoubleAck(within(t)); err != nil {
			t.Fatal(err)
		}
		wantEvent(t, read, want)
		types[read.Type()] = true
	}
	for _, ceType := range events.JobEventTypes() {
		if !types[ceType] {
			t.Errorf("no %s was read", ceType)
		}
	}
	if len(types) < 13 {
		t.Errorf("%d types of decisions were read: %v", len(types), types)
	}
}

// wantEvent wants what a golden file says, in the words of the SDK.
func wantEvent(t *testing.T, got *event.Event, want *nats.Msg) {
	t.Helper()
	if err := got.Validate(); err != nil {
		t.Errorf("%s: %v", got.Type(), err)
	}
	const requestID = `retry me: 50 % of "Grüße"`
	for name, value := range map[string]string{
		"specversion": got.SpecVersion(), "id": got.ID(), "source": got.Source(), "type": got.Type(), "subject": got.Subject(),
		"time": got.Time().UTC().Format(time.RFC3339Nano), "datacontenttype": got.DataContentType(),
	} {
		if plain, err := url.PathUnescape(want.Header.Get(headerPrefix + name)); err != nil || value != plain {
			t.Errorf("%s: %s is %q, want %q", got.Type(), name, value, plain)
		}
	}
	for _, name := range []string{"sequence", "account", "requestdigest", "digest"} {
		if value := got.Extensions()[name]; value != want.Header.Get(headerPrefix+name) {
			t.Errorf("%s: %s is %v", got.Type(), name, value)
		}
	}
	if id := got.Extensions()["requestid"]; id != requestID && strings.Contains(want.Header.Get("ce-requestid"), "%") {
		t.Errorf("%s: the request id is %q", got.Type(), id)
	}
	if !bytes.Equal(got.Data(), want.Data) || !json.Valid(got.Data()) {
		t.Errorf("%s: the data is %s", got.Type(), got.Data())
	}
}

// goldenDecisions returns the messages that the golden files pin.
func goldenDecisions(t *testing.T) (decisions []*nats.Msg) {
	t.Helper()
	paths := must[[]string](t)(filepath.Glob("../events/testdata/golden/*.txt"))
	for _, path := range paths {
		head, data, _ := strings.Cut(string(must[[]byte](t)(os.ReadFile(path))), "\n\n")
		lines := strings.Split(head, "\n")
		if strings.HasPrefix(lines[0], "requests.") {
			continue
		}
		m := nats.NewMsg(lines[0])
		m.Data = []byte(strings.TrimSuffix(data, "\n"))
		for _, line := range lines[1:] {
			name, value, _ := strings.Cut(line, ": ")
			m.Header[name] = []string{value}
		}
		decisions = append(decisions, m)
	}
	return decisions
}
