package cli

// Webhooks are the flags of a process that sends to webhooks.
type Webhooks struct {
	WebhookAllow Networks `placeholder:"NETWORK,..." help:"Networks that are not public and that webhooks may be sent to all the same, over plain HTTP too, such as 10.1.2.0/24 (default: none). Whoever has a token of scope jobs:write can then have any address in them called."`
}
