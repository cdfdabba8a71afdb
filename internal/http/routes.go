package http

import (
	"slices"

	"github.com/labstack/echo/v4"
)

// Routes returns every route, as its method and its path with the names of parameters, such as GET /api/jobs/:id: what is
// to hold for each can be checked for each.
func Routes() []string {
	var routes []string
	for _, route := range NewHandler(Config{}).(*echo.Echo).Routes() {
		routes = append(routes, route.Method+" "+route.Path)
	}
	slices.Sort(routes)
	return routes
}
