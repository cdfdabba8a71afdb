package relay

import (
	"time"

	"jobtally/internal/webhook"
)

// Observer is told what a relay does. Functions that are nil are not called. They are called concurrently, and are quick.
type Observer struct {
	// Delivered is told of each attempt.
	Delivered func(cause webhook.Cause, outcome webhook.Outcome, took time.Duration)
}

func (o Observer) tell(d *webhook.Delivery) {
	if o.Delivered != nil {
		o.Delivered(d.Cause, d.Outcome, d.Duration)
	}
}

// Census is how many endpoints there are, and how much waits for them.
type Census struct {
	ByState map[webhook.State]int
	Waiting uint64 // decisions that endpoints were not sent yet, whether they want them or not
}
