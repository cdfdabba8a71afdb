package projections

import (
	"errors"
	"fmt"
)

// ErrMismatch is the error of a projection that does not follow from the ledger before it. The message says how to
// mend it. Nothing is folded on a doubt.
var ErrMismatch = errors.New("the projection does not match the ledger")

// Those of ErrMismatch that somebody treats otherwise than the rest.
var (
	// ErrDiffers is that of a projection which is sound in itself, and of another past.
	ErrDiffers     error = &mismatch{"another past"}
	errOtherLedger error = &mismatch{"another ledger"}
)

// mismatch is an ErrMismatch of a kind.
type mismatch struct{ kind string }

// Error returns the text of ErrMismatch: the kind is for programs.
func (*mismatch) Error() string { return ErrMismatch.Error() }

// Unwrap makes it an ErrMismatch.
func (*mismatch) Unwrap() error { return ErrMismatch }

// VersionError is the error of a projection that another version of jobtally wrote. It is an ErrMismatch.
type VersionError struct {
	Path    string
	Version int
	remedy  string
}

// Error says what to do about it.
func (e *VersionError) Error() string {
	remedy := e.remedy
	if e.Newer() {
		remedy = "run the newer jobtally that wrote it; or, to go back, " + remedy
	}
	return fmt.Sprintf("%v: %s has schema version %d, this jobtally writes %d; %s", ErrMismatch, e.Path, e.Version, schemaVersion, remedy)
}

// Unwrap makes it an ErrMismatch.
func (e *VersionError) Unwrap() error { return ErrMismatch }

// Newer says whether a newer jobtally wrote it. What an older one wrote is read until it is folded anew.
func (e *VersionError) Newer() bool { return e.Version > schemaVersion }
