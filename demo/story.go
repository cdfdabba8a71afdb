package main

import "time"

// step is something that an account asks for: to be opened, or to have another plan, where it names one; a posting to be
// captured otherwise.
type step struct {
	account string

	opens bool
	plan  string
	limit int64

	job      int           // index of the posting
	spelling string        // that is added to its URL, and makes no other posting of it
	again    bool          // the account's last capture again, under its request id
	late     time.Duration // how far the clock of its node is behind
}

var postings = []struct{ url, title, company string }{
	{"https://boards.greenhouse.io/example/jobs/4858822004", "Software Engineer", "Example"},
	{"https://jobs.lever.co/acme/7a1d2b8e-3c51-4e0f-9a0d-5f2f6a1c9b01", "Platform Engineer", "Acme"},
	{"https://jobs.example.com/openings/1003", "Site Reliability Engineer (m/f/d), Berlin or remote within three hours of it, with a long title", "Example Systems"},
	{"https://jobs.example.com/openings/1004", "Développeur Go", "Société Générale d'Exemple"},
	{"https://jobs.example.com/openings/1005", "データエンジニア", "例示株式会社"},
	{"https://jobs.example.com/openings/1006", "Line one\nline two\tand \x1b[31mred\x1b[0m", "Terminal Tricks"},
	{"https://jobs.example.com/openings/1007", `=HYPERLINK("https://example.com/","click me")`, "+1 Sheets, Inc."},
	{"https://jobs.example.com/openings/1008", "Accountant", "Numbers & \"Sons\""},
	{"https://jobs.example.com/openings/1009", "Nurse", "City Hospital"},
	{"https://jobs.example.com/openings/1010", "Gardener", "Green Ltd"},
	{"https://jobs.example.com/openings/1011", "Teacher", "School No. 7"},
	{"https://jobs.example.com/openings/1012", "Electrician", "Volt & Ohm"},
}

const (
	tracked = "?utm_source=newsletter" // the same posting, in another spelling
	custom  = "custom"
)

// chapter is a month: what comes in its first minute, while the month before is not closed, and what comes later.
type chapter struct{ grace, month []step }

// story has every outcome: captures, duplicates, repeats and rejections; plans that change, up and down; a request on a
// month that is over, in time and too late; and one of an account that is not there.
var story = [4]chapter{
	{month: []step{
		{account: "anna", opens: true, plan: custom, limit: 4},
		{account: "ben", opens: true, plan: "premium", limit: -1},
		{account: "anna", job: 0},
		{account: "anna", job: 1},
		{account: "anna", job: 1, spelling: tracked},
		{account: "ben", job: 0},
		{account: "anna", job: 2},
		{account: "anna", again: true},
		{account: "anna", job: 3},
		{account: "anna", job: 4},
		{account: "ben", job: 5},
	}},
	{grace: []step{
		{account: "anna", job: 4},
		{account: "ben", job: 6, late: 2 * time.Minute},
	}, month: []step{
		{account: "carla", opens: true, plan: custom, limit: 2},
		{account: "ben", job: 7, late: 20 * 24 * time.Hour},
		{account: "carla", job: 6},
		{account: "carla", job: 7},
		{account: "carla", job: 8},
		{account: "carla", plan: custom, limit: 3},
		{account: "carla", job: 8},
		{account: "anna", job: 5},
		{account: "anna", job: 6},
		{account: "nobody", job: 0},
	}},
	{grace: []step{
		{account: "ben", job: 8},
	}, month: []step{
		{account: "anna", plan: "premium", limit: -1},
		{account: "anna", job: 7},
		{account: "anna", job: 8},
		{account: "anna", job: 9},
		{account: "anna", job: 10},
		{account: "anna", job: 11},
		{account: "anna", plan: custom, limit: 4},
		{account: "ben", job: 9},
		{account: "ben", again: true},
		{account: "carla", job: 6, spelling: tracked},
	}},
	{grace: []step{
		{account: "carla", job: 9},
	}, month: []step{
		{account: "anna", job: 0, spelling: tracked},
		{account: "ben", job: 10},
		{account: "carla", job: 10},
		{account: "carla", job: 11},
		{account: "carla", job: 0},
	}},
}
