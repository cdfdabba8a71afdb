// Command projector decides requests beside an external NATS server, and is the operators' tool: it opens accounts,
// issues tokens and says how far everything is. One file a subcommand.
package main

import (
	"context"
	"io"
	"log/slog"
	"os"

	"jobtally/internal/cli"
	"jobtally/internal/node"
)

type flags struct {
	Run     runCmd     `cmd:"" help:"Decide the requests of a ledger on an external NATS server, and fold them, until stopped."`
	Init    initCmd    `cmd:"" help:"Create the ledger on an external NATS server."`
	Status  statusCmd  `cmd:"" help:"Print how far each partition is recorded, decided and folded."`
	Replay  replayCmd  `cmd:"" help:"Print the requests and decisions of a month, an account or a stretch, paired, in the order of their positions. Decides nothing and changes nothing."`
	Tail    tailCmd    `cmd:"" help:"Print decisions as they are made, a line each, after the last ten. Times are in UTC. What was decided before comes by the time of the request, each partition in its own order; what comes then, as it arrives. A lost connection is made again, and nothing is missed. Ctrl-C ends it."`
	Audit   auditCmd   `cmd:"" help:"Decide every request again, and compare decisions, counts, hash chain and the rows of the projection with what is there. Exits with 0 where nothing differs, 3 where something does, 1 after a failure."`
	Rebuild rebuildCmd `cmd:"" help:"Fold the ledger anew into a new projection, beside the service if one runs, and put it in the place of the one that is there once their digests are equal. Reads go on. Ctrl-C keeps what is folded: the same command goes on from there. Exits with 0 where the new one is in its place, 3 where the digests differ, 1 after a failure."`
	Backup  backupCmd  `cmd:"" help:"Copy the projection, as it is at one moment, while the service runs or not. A node on the same ledger that starts with the copy as its projection.db, and no -wal and -shm beside it, folds only what came after. It is no copy of the ledger: requests cannot be made again from it."`
	Erase   eraseCmd   `cmd:"" help:"Erase an account for good: everything that was asked and decided of it goes, from the ledger and from every projection. What stays is its name in the record of the erasure, and its counts by month."`
	Archive struct {
		Export archiveExportCmd `cmd:"" help:"Write an archived month into a directory, as CloudEvents with everything that proves them. Nothing is removed from the ledger."`
		Verify archiveVerifyCmd `cmd:"" help:"Prove a directory that was exported, without a server. Exits with 0 where nothing differs, 3 where something does, 1 where it cannot be read."`
		Replay archiveReplayCmd `cmd:"" help:"Print what is in directories that were exported, and audit it: every request is decided again where they go back to the first."`
	} `cmd:"" help:"Exported months."`
	Account struct {
		Open accountOpenCmd `cmd:"" help:"Open an account."`
		List accountListCmd `cmd:"" help:"Print all accounts that are open, by name, from the decisions in the ledger."`
		Show accountShowCmd `cmd:"" help:"Print an account: its plan and who set it, its quota of the month, its tokens. It is added up from the decisions in the ledger."`
		Plan accountPlanCmd `cmd:"" help:"Put an account on another plan, at once."`
	} `cmd:"" help:"Accounts and their plans."`
	Token struct {
		Issue  tokenIssueCmd  `cmd:"" help:"Issue a token, and print it: it is shown this once."`
		List   tokenListCmd   `cmd:"" help:"Print the tokens of an account, never their secrets, from the decisions in the ledger."`
		Revoke tokenRevokeCmd `cmd:"" help:"Revoke a token."`
	} `cmd:"" help:"Bearer tokens."`
	Consumer struct {
		Add    consumerAddCmd    `cmd:"" help:"Let somebody read decisions on NATS with tools of their own, such as the nats command, and nothing else. Prints the command and the credentials: the password is shown this once."`
		List   consumerListCmd   `cmd:"" help:"Print the consumers on NATS, and how far each is."`
		Remove consumerRemoveCmd `cmd:"" help:"Remove a consumer, with the place that it had got to."`
	} `cmd:"" help:"Who reads decisions on NATS."`
	Webhook struct {
		List       webhookListCmd       `cmd:"" help:"Print the webhooks of an account, or of all."`
		Show       webhookShowCmd       `cmd:"" help:"Print a webhook, and how far the delivery of its events is."`
		Enable     webhookEnableCmd     `cmd:"" help:"Have events sent to a webhook again, from where it stopped."`
		Disable    webhookDisableCmd    `cmd:"" help:"Have nothing sent to a webhook until it is enabled again. No event is lost meanwhile."`
		Remove     webhookRemoveCmd     `cmd:"" help:"Remove a webhook, with its log of deliveries and its poison queue."`
		Redrive    webhookRedriveCmd    `cmd:"" help:"Send again what is in the poison queue of a webhook, in order; what is accepted leaves it. Exits with 1 where something is left. With --redeliver, send a stretch of decided events again instead, though they were delivered."`
		Deliveries webhookDeliveriesCmd `cmd:"" help:"Print the latest deliveries to a webhook, the latest first."`
	} `cmd:"" help:"Webhooks of accounts."`
	cli.Logging
}

func main() { os.Exit(cli.Main(run)) }

// run carries out one command line. It returns nil when ctx ended it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	var f flags
	parsed, err := cli.Parse(&f, "projector", "Decides requests beside an external NATS server; and the operators' tool for any jobtally.", args, stdout, stderr)
	if parsed == nil {
		return err
	}
	return parsed.Run(&session{ctx: ctx, stdin: os.Stdin, stdout: stdout, stderr: stderr, log: f.Logger(stderr)})
}

// session is what a subcommand runs in.
type session struct {
	ctx    context.Context
	stdin  io.Reader // where an operator is asked
	stdout io.Writer
	stderr io.Writer // the log's, and where progress is shown
	log    *slog.Logger
}

// access are the flags that say where the ledger is. The service that runs on a data directory is found through it.
type access struct {
	NATS string `name:"nats" placeholder:"URL" help:"URL of the NATS server that has the ledger (default: none; the ledger is found through --data)."`
	Data string `placeholder:"DIR" help:"Data directory of a service with its own NATS server (default: data, unless --nats is given). When none runs there, the ledger is opened for the time of the command."`
}

func (a access) dial(s *session) (*node.Operator, error) {
	return node.Dial(s.ctx, node.Config{NATS: a.NATS, Dir: a.dir(), Log: s.log})
}

// inspect opens the ledger to look only.
func (a access) inspect(s *session) (*node.Operator, error) {
	return node.Inspect(s.ctx, node.Config{NATS: a.NATS, Dir: a.dir(), Log: s.log})
}

// dir returns the data directory that is meant, or nothing when only a server is.
func (a access) dir() string {
	if a.Data == "" && a.NATS == "" {
		return "data"
	}
	return a.Data
}
