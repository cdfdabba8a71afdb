package http

import (
	"jobtally/docs"
	"jobtally/internal/contract"

	"github.com/labstack/echo/v4"
)

// The paths of the contract, and of the page that is made of it.
const (
	contractPath = "/openapi.yaml"
	docsPath     = "/docs"
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
