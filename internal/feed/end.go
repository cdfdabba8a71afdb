package feed

// End is why a client's stream ended.
type End string

// All the reasons that there are.
const (
	EndedLeft    End = "left"    // the client did, or the service stops
	EndedSlow    End = "slow"    // it did not take what it was told
	EndedRefused End = "refused" // its token is accepted no longer, or its account was erased
	EndedFailed  End = "failed"  // history could not be read
)

// Ends returns all of them.
func Ends() []End { return []End{EndedLeft, EndedSlow, EndedRefused, EndedFailed} }
