// Package events holds what jobtally records: requests, decisions, and their wire form.
//
// A request is something that was asked. A decision is the answer to it, and carries the same number: message i
// of DECISIONS_p decides message i of REQUESTS_p. Both travel as CloudEvents 1.0 in the binary mode of the NATS
// protocol binding: the attributes are lower-case ce-* headers and the payload is the data.
//
// The package imports the standard library only. It knows how to write and read a fact, not what to decide and
// not where facts are kept.
package events
