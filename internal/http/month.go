package http

import (
	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// The statuses of a month as clients see them.
const (
	monthCurrent  = "current"
	monthClosing  = "closing" // over, and not archived yet: what is still to be decided may count in it
	monthArchived = "archived"
)

type historyForm struct {
	Months []monthForm `json:"months"`
}

// monthForm is a month as clients see it.
type monthForm struct {
	Month  events.Month `json:"month"`
	Status string       `json:"status"`
	quotaForm
	Captured   int64          `json:"captured"`
	Duplicated int64          `json:"duplicated"`
	Rejected   int64          `json:"rejected"`
	Repeated   int64          `json:"repeated"`
	Digest     *events.Digest `json:"digest,omitempty"`  // the account's last link in the month; absent without requests
	Archive    *archiveForm   `json:"archive,omitempty"` // of an archived month
}

// archiveForm is the proof of an archived month: the receipt of the decision that archived it, and the digest over the
// accounts of the month in it.
type archiveForm struct {
	receipt
	MonthDigest events.Digest `json:"month_digest"`
}

// monthDetails is a month by days and by how its jobs were captured.
type monthDetails struct {
	monthForm
	CapturedVia viaForm     `json:"captured_via"`
	Days        []dayForm   `json:"days"` // with captures, in order
	Ledger      *ledgerForm `json:"ledger,omitempty"`
}

type viaForm struct {
	API       int64 `json:"api"`
	Extension int64 `json:"extension"`
}

type dayForm struct {
	Day        string `json:"day"`
	Captured   int64  `json:"captured"`
	Duplicated int64  `json:"duplicated"`
	Rejected   int64  `json:"rejected"`
}

func formOfMonth(m *capture.AccountMonth, current events.Month) monthForm {
	form := monthForm{
		Month: m.Month, Status: statusOf(m, current), quotaForm: *formOfQuota(m.Quota()),
		Captured: m.Captured, Duplicated: m.Duplicated, Rejected: m.Rejected, Repeated: m.Repeated,
	}
	if m.Requests > 0 {
		form.Digest = &m.Digest
	}
	if m.Archive != nil {
		form.Archive = &archiveForm{receipt{m.Archive.Position, m.Archive.Digest.String()}, m.Archive.Month}
	}
	return form
}

func statusOf(m *capture.AccountMonth, current events.Month) string {
	switch {
	case m.Archive != nil:
		return monthArchived
	case m.Month < current:
		return monthClosing
	}
	return monthCurrent
}

func detailsOf(m *capture.AccountMonth, current events.Month) *monthDetails {
	details := &monthDetails{
		monthForm: formOfMonth(m, current), CapturedVia: viaForm{API: m.Captured - m.Extension, Extension: m.Extension},
		Days: make([]dayForm, len(m.Days)),
	}
	for i, day := range m.Days {
		details.Days[i] = dayForm(day)
	}
	return details
}
