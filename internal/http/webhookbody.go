package http

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"jobtally/internal/events"
	"jobtally/internal/token"
	"jobtally/internal/webhook"
)

const (
	maxWebhookURL         = 2048 // characters
	maxWebhookDescription = 200
)

// fixedOfWebhook are the members of a webhook that nobody changes by a patch.
var fixedOfWebhook = []string{"id", "state", "state_since", "created_at", "after", "version", "secret", "progress"}

// webhookFields are the fields of a webhook that its account sets.
func webhookFields(into *webhook.Change) []jsonField {
	return []jsonField{
		{"url", takeWebhookURL(&into.URL)},
		{"types", takeTypes(&into.Types)},
		{"description", func(raw json.RawMessage) string {
			into.Description = new(string)
			return optionalText(into.Description, maxWebhookDescription)(raw)
		}},
	}
}

// decodeNewWebhook reads the body of POST /api/webhooks. Nothing in what it returns is nil but Enabled.
func decodeNewWebhook(body []byte) (asked webhook.Change, err error) {
	asked = webhook.Change{Types: new([]string), Description: new(string)}
	o, err := decodeObject(body, "a webhook", webhookFields(&asked)...)
	if err != nil {
		return asked, err
	}
	if !o.has("url") {
		o.wrong("url", "is missing")
	}
	return asked, o.problem()
}

// decodeWebhookPatch reads a JSON merge patch of a webhook.
func decodeWebhookPatch(body []byte) (change webhook.Change, err error) {
	fields := append(webhookFields(&change), jsonField{"enabled", takeBool(&change.Enabled)})
	names := make([]string, len(fields))
	for i := range fields {
		names[i] = fields[i].name
	}
	o := newObject("a webhook", names)
	o.explain = func(name string) string {
		if name == "state" {
			return "cannot be changed; enabled, true or false, can"
		}
		if slices.Contains(fixedOfWebhook, name) {
			return "cannot be changed"
		}
		return ""
	}
	if err := o.read(body, func(i int, raw json.RawMessage) string { return fields[i].take(raw) }); err != nil {
		return change, err
	}
	if err := o.problem(); err != nil {
		return change, err
	}
	if !slices.Contains(o.sent, true) {
		return change, newProblem(codeInvalidRequest, "the patch changes nothing; send at least one field")
	}
	return change, nil
}

// takeWebhookURL takes a URL as far as it can be told that it is none: whether anything may be sent to it, the relay says.
func takeWebhookURL(into **string) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		text, wrong := textOf(raw)
		switch {
		case wrong != "":
			return wrong
		case token.Within(text):
			return "must not have a token in it: everybody could read that"
		case text == "":
			return "must be a URL, such as https://example.com/hooks"
		}
		*into = &text
		return atMost(maxWebhookURL)(text)
	}
}

// takeTypes takes types of events, each of them once. null is as good as none, which means all.
func takeTypes(into **[]string) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		types := []string{}
		*into = &types
		return takeTexts(&types, func(text string) string {
			if !events.KnownEventType(text) {
				return notEventType(text, slices.Concat(events.JobEventTypes(), events.QuotaEventTypes()))
			}
			return ""
		})(raw)
	}
}

func takeBool(into **bool) func(json.RawMessage) string {
	return func(raw json.RawMessage) string {
		if kind := nameOfRaw(raw); kind != "a boolean" {
			return "must be true or false, not " + kind
		}
		is := raw[0] == 't'
		*into = &is
		return ""
	}
}

// decodeRotation reads the body of POST /api/webhooks/{id}/secret.
func decodeRotation(body []byte) (keep time.Duration, err error) {
	keep = webhook.KeepSecret
	o, err := decodeObject(body, "a rotation", jsonField{"keep_seconds", takeKeep(&keep)})
	if err != nil {
		return 0, err
	}
	return keep, o.problem()
}

func takeKeep(into *time.Duration) func(json.RawMessage) string {
	const most = int64(webhook.KeepSecretMost / time.Second)
	return func(raw json.RawMessage) string {
		if raw[0] == 'n' {
			return ""
		}
		if kind := nameOfRaw(raw); kind != "a number" {
			return "must be a number, not " + kind
		}
		n, err := strconv.ParseInt(string(raw), 10, 64)
		if err != nil || n < 0 || n > most {
			return fmt.Sprintf("must be a whole number of seconds from 0 to %d", most)
		}
		*into = time.Duration(n) * time.Second
		return ""
	}
}
