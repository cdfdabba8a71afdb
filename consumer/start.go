package consumer

// Start is a place in a stream to begin at: Beginning, Now, or After a sequence.
type Start struct {
	kind     startKind
	sequence uint64
}

type startKind int

const (
	fromBeginning startKind = iota
	fromNow
	fromAfter
)

var (
	// Beginning is before the first message that is there.
	Beginning = Start{}
	// Now is behind the last message that is there when it is asked for.
	Now = Start{kind: fromNow}
)

// After is behind the message with a sequence, of which nothing may be missing: where the messages from there on were
// pruned, Subscribe returns a *PrunedError. After(0) is before the very first.
func After(sequence uint64) Start { return Start{kind: fromAfter, sequence: sequence} }

// Domain is the JetStream domain of the ledger for a user of an account of its own, as `projector consumer add` makes them.
const Domain = "LEDGER"
