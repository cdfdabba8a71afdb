package events

import "errors"

// What can become of reading and appending, whichever way it is done. Callers match these, never text.
var (
	// ErrNotFound is the error of a look-up of what does not exist (yet).
	ErrNotFound = errors.New("not found")
	// ErrUnavailable is the error of an append that did not happen: nothing was recorded, and trying again later is right.
	ErrUnavailable = errors.New("the ledger takes no requests right now")
	// ErrUnknownOutcome is the error of an append that may or may not have been recorded. Asking again with the same
	// request id is safe: the same id is decided once.
	ErrUnknownOutcome = errors.New("the ledger did not confirm the request")
	// ErrUnknownType is the error of a message whose CloudEvents type this version does not know. Skipping a fact is
	// wrong for ever, so whoever reads it stops: a newer writer is about.
	ErrUnknownType = errors.New("unknown type")
	// ErrGap is the error of reading a stream that skips a number that no erasure explains: a message was removed behind the ledger's back.
	ErrGap = errors.New("the ledger has a gap")
	// ErrFenced is the error of a decide-append that found another decision under its number: another projector was
	// first, and its decision holds.
	ErrFenced = errors.New("another projector decided this position first")
)
