package client_test

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"
	"go.yaml.in/yaml/v3"

	"jobtally/client"
)

func TestAWebhookFromItsRegistrationToItsDeletion(t *testing.T) {
	s := start(t, "--webhook-allow", "127.0.0.0/8")
	c, ctx := s.client(t, s.url), t.Context()
	bodies := make(chan []byte, 10)
	verifier := make(chan *standardwebhooks.Webhook, 1)
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		v := <-verifier
		verifier <- v
		if err := v.Verify(body, r.Header); err != nil {
			t.Error(err)
		}
		bodies <- body
	}))
	defer receiver.Close()
	hook, err := c.CreateWebhook(ctx, client.NewWebhook{URL: receiver.URL, Types: []string{"jobtally.job.captured"}, Description: "a trial"})
	if err != nil {
		t.Fatal(err)
	}
	v, err := standardwebhooks.NewWebhook(hook.Secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier <- v
	if tested, err := c.TestWebhook(ctx, hook.ID); err != nil || tested.Outcome != "accepted" || tested.Status != http.StatusOK {
		t.Errorf("tested: %+v, %v", tested, err)
	}
	<-bodies
	if _, err := c.Capture(ctx, client.NewJob{SourceURL: "https://jobs.example.com/1", Title: "Clerk", Company: "Example"}); err != nil {
		t.Fatal(err)
	}
	<-bodies
	for read, err := c.Webhook(ctx, hook.ID); err != nil || read.Progress.Pending > 0; read, err = c.Webhook(ctx, hook.ID) {
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Millisecond)
	}
	off := false
	changed, err := c.UpdateWebhook(ctx, hook.ID, client.WebhookChange{Enabled: &off}, hook.Version)
	if err != nil || changed.State != "disabled" || changed.Secret != "" {
		t.Errorf("changed: %+v, %v", changed, err)
	}
	if _, err := c.UpdateWebhook(ctx, hook.ID, client.WebhookChange{Types: &[]string{}}, hook.Version); !errors.Is(err, client.WebhookVersionConflict) {
		t.Errorf("another version: %v", err)
	}
	if rotated, err := c.RotateWebhookSecret(ctx, hook.ID, time.Hour); err != nil || rotated.Secret == hook.Secret || rotated.PreviousExpiresAt == nil {
		t.Errorf("rotated: %+v, %v", rotated, err)
	}
	var causes []string
	for d, err := range c.Deliveries(ctx, hook.ID) {
		if err != nil {
			t.Fatal(err)
		}
		causes = append(causes, d.Cause)
	}
	if len(causes) != 2 || causes[0] != "event" || causes[1] != "test" {
		t.Errorf("the deliveries are %s", causes)
	}
	if read, err := c.Webhook(ctx, hook.ID); err != nil || read.Progress == nil || read.Progress.Circuit != "closed" || read.URL != receiver.URL {
		t.Errorf("read: %+v, %v", read, err)
	}
	if list, err := c.Webhooks(ctx); err != nil || len(list) != 1 || list[0].ID != hook.ID {
		t.Errorf("listed: %+v, %v", list, err)
	}
	if err := c.DeleteWebhook(ctx, hook.ID); err != nil {
		t.Error(err)
	}
	if _, err := c.Webhook(ctx, hook.ID); !errors.Is(err, client.WebhookNotFound) {
		t.Errorf("deleted: %v", err)
	}
}

// TestWebhooksHaveTheMembersOfTheContract holds the types of webhooks against the schemas that they are of.
func TestWebhooksHaveTheMembersOfTheContract(t *testing.T) {
	text, err := os.ReadFile("../docs/openapi.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var contract struct {
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	if err := yaml.Unmarshal(text, &contract); err != nil {
		t.Fatal(err)
	}
	for schema, of := range map[string]reflect.Type{
		"CreatedWebhook": reflect.TypeFor[client.Webhook](), "NewWebhook": reflect.TypeFor[client.NewWebhook](), "WebhookPatch": reflect.TypeFor[client.WebhookChange](),
		"Progress": reflect.TypeFor[client.WebhookProgress](), "Delivery": reflect.TypeFor[client.Delivery](),
	} {
		has := map[string]bool{}
		for i := range of.NumField() {
			name, _, _ := strings.Cut(of.Field(i).Tag.Get("json"), ",")
			has[name] = true
		}
		if len(contract.Components.Schemas[schema].Properties) == 0 {
			t.Errorf("there is no schema %s", schema)
		}
		for name := range contract.Components.Schemas[schema].Properties {
			if !has[name] {
				t.Errorf("%v has no %s, which %s has", of, name, schema)
			}
		}
	}
}
