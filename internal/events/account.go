package events

import (
	"fmt"
	"hash/fnv"
)

// MaxAccountLength is the longest name an account may have, in bytes.
const MaxAccountLength = 64

// ValidAccount returns an error that says what is allowed unless name is an account's name: 1 to 64 of a-z, 0-9,
// _ and -. Such a name is safe as one token of a subject.
func ValidAccount(name string) error {
	if name == "" || len(name) > MaxAccountLength {
		return fmt.Errorf("account %q: a name has 1 to %d characters", name, MaxAccountLength)
	}
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return fmt.Errorf("account %q: a name has only the characters a-z, 0-9, _ and -", name)
		}
	}
	return nil
}

// PartitionOf returns the partition, 0 to partitions-1, that holds everything of the account. It is the 64-bit
// FNV-1a hash of the name modulo the number of partitions: it is part of the wire form and never changes.
func PartitionOf(account string, partitions int) int {
	h := fnv.New64a()
	h.Write([]byte(account))
	return int(h.Sum64() % uint64(partitions))
}
