// Package consumer reads the decisions of a jobtally ledger from NATS, as a subscriber for watermill: routers,
// middleware and typed handlers (cqrs) work on it as on any other.
//
// Each decision comes at least once, those of an account in their order: a stream, of which each account has one, has one
// message in hand at a time, and the next comes when that is acked. A message that is nacked comes again after a while,
// and those behind it wait. Streams go on side by side.
//
// Where a consumer goes on when it starts again is its checkpoint. Either the server keeps it ([Config].Durable): several
// processes can share the work then, and who handles a message twice has to bear it. Or the caller does ([Config].Start):
// whoever commits it together with what a message makes it do, does that exactly once.
//
// A type is one version of one event. A handler gets the versions that it knows, and what is done with others is the
// program's to say: see [Expect].
package consumer
