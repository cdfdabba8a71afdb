package events

// Job is what a client captures: the content of one job posting as it stands in a tracker. Lengths are counted in
// characters, and bounded at the edge, not here.
type Job struct {
	SourceURL      string `json:"source_url"` // the original, as the client sent it
	Title          string `json:"title"`
	Company        string `json:"company,omitempty"`
	Location       string `json:"location,omitempty"`
	Description    string `json:"description,omitempty"`
	ApplicationURL string `json:"application_url,omitempty"`
	JobType        string `json:"job_type,omitempty"` // one of JobTypes, or empty
	Notes          string `json:"notes,omitempty"`
	Status         string `json:"status"`       // one of Statuses
	CapturedVia    string `json:"captured_via"` // one of CapturedVia
}

// JobTypes returns the kinds of employment that a job may state.
func JobTypes() []string {
	return []string{"full_time", "part_time", "contract", "internship", "temporary", "freelance", "other"}
}

// Statuses returns the states of an application; the first is the one of a job captured without any.
func Statuses() []string {
	return []string{"saved", "applied", "interviewing", "offered", "rejected", "withdrawn"}
}

// CapturedVia returns the ways by which a job is captured; the first is the one of a job that does not say.
func CapturedVia() []string { return []string{"api", "extension"} }

// EditableFields returns the JSON names of the fields that an update may change, in the order of a job's fields. The others
// say what was captured, and how.
func EditableFields() []string {
	return []string{"title", "company", "location", "description", "application_url", "job_type", "notes", "status"}
}

// Editable returns the field of one of EditableFields, or nil.
func (j *Job) Editable(name string) *string {
	switch name {
	case "title":
		return &j.Title
	case "company":
		return &j.Company
	case "location":
		return &j.Location
	case "description":
		return &j.Description
	case "application_url":
		return &j.ApplicationURL
	case "job_type":
		return &j.JobType
	case "notes":
		return &j.Notes
	case "status":
		return &j.Status
	}
	return nil
}
