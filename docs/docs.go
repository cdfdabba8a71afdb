// Package docs holds the documents that the service serves.
package docs

import _ "embed"

// OpenAPI is the contract of the HTTP API, OpenAPI 3.1 in YAML.
//
//go:embed openapi.yaml
var OpenAPI []byte
