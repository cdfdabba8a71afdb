package client

import (
	"context"
	"iter"
	"net/url"
)

// Month is a month of the account. It is current, closing from its end until it is archived, and archived from then on.
type Month struct {
	Month  string `json:"month"` // 2026-11
	Status string `json:"status"`
	Quota
	Captured   int64         `json:"captured"`
	Duplicated int64         `json:"duplicated"`
	Rejected   int64         `json:"rejected"`
	Repeated   int64         `json:"repeated"`
	Digest     string        `json:"digest,omitempty"` // the account's last link in the month
	Archive    *MonthArchive `json:"archive,omitempty"`

	// Of a month that is asked for alone.
	CapturedVia map[string]int64 `json:"captured_via,omitempty"` // jobs
	Days        []Day            `json:"days,omitempty"`         // with captures, in order
	Ledger      *MonthLedger     `json:"ledger,omitempty"`       // where it was asked for
}

// MonthArchive is the proof of an archived month.
type MonthArchive struct {
	Receipt
	MonthDigest string `json:"month_digest"`
}

// Day is what the captures of a day, UTC, came to.
type Day struct {
	Day        string `json:"day"`
	Captured   int64  `json:"captured"`
	Duplicated int64  `json:"duplicated"`
	Rejected   int64  `json:"rejected"`
}

// MonthLedger is what the ledger has of a month, and whether that is the same.
type MonthLedger struct {
	Matches      bool   `json:"matches"`
	First        string `json:"first"` // position of the stretch that was read
	Last         string `json:"last"`
	MessagesRead int64  `json:"messages_read"`
	Broken       string `json:"broken,omitempty"` // how the ledger itself is not whole
	Differences  []struct {
		Field      string `json:"field"`
		Projection any    `json:"projection"`
		Ledger     any    `json:"ledger"`
	} `json:"differences"`
}

// Months yields the months of the account, the latest first.
func (c *Client) Months(ctx context.Context) iter.Seq2[Month, error] {
	return list(ctx, c, call{path: "api/jobs/quota/history"}, func(page struct{ Months []Month }) []Month { return page.Months })
}

// MonthFrom says what a month is read from.
type MonthFrom string

// Projection is what the service has at hand; with Ledger it also adds the month up from the ledger, and compares.
const (
	Projection MonthFrom = ""
	Ledger     MonthFrom = "ledger"
)

// Month returns a month, such as 2026-11, by days and by how its jobs were captured.
func (c *Client) Month(ctx context.Context, month string, from MonthFrom) (*Month, error) {
	query := url.Values{}
	if from != Projection {
		query.Set("source", string(from))
	}
	return get[Month](ctx, c, call{path: "api/jobs/quota/history/" + url.PathEscape(month), query: query})
}
