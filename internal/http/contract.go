package http

import (
	"jobtally/docs"
	"jobtally/internal/contract"

	"github.com/labstack/echo/v4"
)

// The paths of the contract, of the page that is made of it, and of the contract of events with its schemas.
const (
	contractPath      = "/openapi.yaml"
	docsPath          = "/docs"
	eventContractPath = "/asyncapi.yaml"
	schemasPath       = "/schemas/:schema"
)

// contractPage is the contract to be read by people.
type contractPage struct {
	html   []byte
	policy string // Content-Security-Policy
}

// makePage makes the page of the contract. That takes longer than any answer, and so it is made once.
func makePage() (p contractPage, err error) {
	read, err := contract.Read(docs.OpenAPI)
	if err != nil {
		return p, err
	}
	p.html, p.policy, err = read.Page()
	return p, err
}

// getContract answers GET /openapi.yaml.
func (a *api) getContract(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-cache")
	return writeTaggedAs(c, "application/yaml", docs.OpenAPI)
}

// getEventContract answers GET /asyncapi.yaml.
func (a *api) getEventContract(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-cache")
	return writeTaggedAs(c, "application/yaml", docs.AsyncAPI)
}

// getSchema answers GET /schemas/{schema}.
func (a *api) getSchema(c echo.Context) error {
	text, err := docs.Schemas.ReadFile("schemas/" + c.Param("schema"))
	if err != nil {
		return newProblem(codeNotFound, "")
	}
	c.Response().Header().Set("Cache-Control", "no-cache")
	return writeTaggedAs(c, "application/schema+json", text)
}

// getDocs answers GET /docs.
func (a *api) getDocs(c echo.Context) error {
	p, err := a.page()
	if err != nil {
		return err
	}
	header := c.Response().Header()
	header.Set("Cache-Control", "no-cache")
	header.Set("Content-Security-Policy", p.policy)
	return writeTaggedAs(c, "text/html; charset=utf-8", p.html)
}
