// Package docs holds the documents that the service serves.
package docs

import "embed"

// OpenAPI is the contract of the HTTP API, OpenAPI 3.1 in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte

// AsyncAPI is the contract of events, AsyncAPI 3.1 in YAML. It refers to Schemas by relative names.
//
//go:embed asyncapi.yaml
var AsyncAPI []byte

// Schemas has the JSON Schemas of events: schemas/TYPE.json of the data of each type, schemas/event.json of an event as
// webhooks and server-sent events have it, and schemas/headers.json of the headers of a decision on NATS.
//
//go:embed schemas
var Schemas embed.FS
