// Command example captures a job, marks it as applied for, and lists what is in the tracker. Beside `make run`:
//
//	go run ./client/example --token-file data/token
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"

	"jobtally/client"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("example", flag.ContinueOnError)
	url := flags.String("url", "http://127.0.0.1:8080", "the service")
	file := flags.String("token-file", "data/token", "file with the token")
	if err := flags.Parse(args); err != nil {
		return err
	}
	token, err := os.ReadFile(*file)
	if err != nil {
		return err
	}
	c, err := client.New(*url, strings.TrimSpace(string(token)))
	if err != nil {
		return err
	}
	return track(ctx, c, out)
}

func track(ctx context.Context, c *client.Client, out io.Writer) error {
	captured, err := c.Capture(ctx, client.NewJob{
		SourceURL: "https://boards.greenhouse.io/example/jobs/4858822004", Title: "Software Engineer", Company: "Example",
	})
	var problem *client.Problem
	switch {
	case errors.Is(err, client.QuotaExceeded) && errors.As(err, &problem):
		fmt.Fprintf(out, "%d of %d are used; the count starts at 0 again on %s\n", problem.Used, problem.Limit, problem.ResetDate)
		return nil
	case err != nil:
		return err
	}
	if captured.Job == nil { // not decided yet, or deleted since
		fmt.Fprintf(out, "%s\n", captured.Outcome)
		return nil
	}
	fmt.Fprintf(out, "%s: %s, %d of %d used\n", captured.Outcome, captured.Job.Title, captured.Quota.Used, captured.Quota.Limit)
	if _, err := c.UpdateJob(ctx, captured.Job.ID, client.Change{"status": "applied"}, captured.Job.Version); err != nil {
		return err
	}
	for job, err := range c.Jobs(ctx, client.JobQuery{Status: "applied"}) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "applied: %s at %s, version %d\n", job.Title, job.Company, job.Version)
	}
	return nil
}
