package http

import (
	nethttp "net/http"

	"github.com/labstack/echo/v4"
)

type health struct {
	Status string `json:"status"`
}

// getLive answers /livez: the process answers, whatever state the node is in.
func (a *api) getLive(c echo.Context) error {
	c.Response().Header().Set("Cache-Control", "no-store")
	return writeJSON(c, nethttp.StatusOK, health{"alive"})
}

// getReady answers /readyz: whether the node can answer, and else why not.
func (a *api) getReady(c echo.Context) error {
	if err := a.backend.Ready(c.Request().Context()); err != nil {
		return newProblem(codeNotReady, err.Error())
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return writeJSON(c, nethttp.StatusOK, health{"ready"})
}
