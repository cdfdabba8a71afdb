// Package consumer reads the decisions of a jobtally ledger from NATS with watermill: each once it is decided, in order, and at
// least once.
package consumer
