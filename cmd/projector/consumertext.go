package main

import (
	"fmt"
	"io"
	"strings"

	"golang.org/x/crypto/bcrypt"

	"jobtally/internal/events"
	"jobtally/internal/ledger"
)

// addedConsumer is a consumer as its operator is told of it, this once.
type addedConsumer struct {
	ledger.Consumer
	after    []events.Position
	user     ledger.ConsumerUser
	password string
	server   string // URL, without credentials
}

// print tells of a consumer of a service's own server, and how to read with it.
func (c *addedConsumer) print(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%s\n%s\n\n%s", c.given(), "Its password is shown this once. To read the next ten, and acknowledge each:", c.commands())
	return err
}

// printExternal has the operator let the consumer in: the users of an external server are in its configuration.
func (c *addedConsumer) printExternal(w io.Writer) error {
	account, err := c.natsAccount()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\nIt is let in once this stands among the accounts in the configuration of the NATS server (deploy/nats/jobtally.conf), and that was told twice with `nats-server --signal reload` (version 2.15 lets a new account reach the ledger only at the second):\n\n%s\n%s\n\n%s",
		c.given(), account, "Its password is shown this once. To read the next ten, and acknowledge each:", c.commands())
	return err
}

// given says which decisions the consumer gets.
func (c *addedConsumer) given() string {
	what := "all decisions"
	if c.Account != "" {
		what = "the decisions on jobs of " + c.Account
	}
	var after []string
	for _, p := range c.after {
		after = append(after, p.String())
	}
	return fmt.Sprintf("consumer %s is given %s after %s, in order; each comes again until it is acknowledged", c.Name, what, strings.Join(after, ", "))
}

// commands can be pasted into a shell as they are. The password comes by the environment: a command line is in the list of
// processes, for everybody to read.
func (c *addedConsumer) commands() string {
	next := func(stream string) string {
		return fmt.Sprintf("nats --js-domain %s --inbox-prefix %s consumer next %s %s --count 10", ledger.Domain, c.user.Inbox(), stream, c.Name)
	}
	environment := fmt.Sprintf("export NATS_URL=%s NATS_USER=%s NATS_PASSWORD=%s\n", c.server, c.Name, c.password)
	if len(c.after) == 1 {
		return environment + next(events.Decisions.Name(c.after[0].Partition)) + "\n"
	}
	return fmt.Sprintf("%sfor p in $(seq 0 %d); do\n  %s\ndone\n", environment, len(c.after)-1, next(string(events.Decisions)+"_$p"))
}

// natsAccount is the account and user of the consumer in the form of a NATS server's configuration. It has no password, only
// what the server compares one with.
func (c *addedConsumer) natsAccount() (string, error) {
	hash, err := bcrypt.GenerateFromPassword([]byte(c.password), bcrypt.DefaultCost)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "  %s {\n    imports: [\n", c.user.NATSAccount())
	for _, q := range c.user.Questions() {
		fmt.Fprintf(&b, "      { service: { account: LEDGER, subject: %q }, to: %q }\n", q, ledger.InDomain(q))
	}
	fmt.Fprintf(&b, "      { service: { account: LEDGER, subject: %q } }\n    ]\n    users: [\n      {\n", c.user.Acknowledgements())
	fmt.Fprintf(&b, "        user: %q\n        password: %q\n        permissions: {\n          publish: [\n", c.Name, hash)
	for _, subject := range c.user.Publishes() {
		fmt.Fprintf(&b, "            %q\n", subject)
	}
	fmt.Fprintf(&b, "          ]\n          subscribe: %q\n        }\n      }\n    ]\n  }\n", c.user.Inbox()+".>")
	return b.String(), nil
}
