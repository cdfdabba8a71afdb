package http

import (
	nethttp "net/http"
	"slices"
	"strings"

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

// exact answers a call whose path is not that of its route: echo takes more parts for the last parameter of a path, also
// where there is a longer path that the method is not for, and nothing between two slashes for a parameter too.
func exact(e *echo.Echo) echo.MiddlewareFunc {
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			path := c.Request().URL.EscapedPath()
			if strings.Count(path, "/") == strings.Count(c.Path(), "/") && !strings.Contains(path, "//") {
				return next(c)
			}
			methods := methodsOf(e.Routes(), path)
			if len(methods) == 0 {
				return newProblem(codeNotFound, "")
			}
			c.Response().Header().Set("Allow", strings.Join(methods, ", "))
			if c.Request().Method == nethttp.MethodOptions {
				return c.NoContent(nethttp.StatusNoContent)
			}
			return newProblem(codeMethodNotAllowed, "")
		}
	}
}

// methodsOf returns the methods of a path that has a route for some.
func methodsOf(routes []*echo.Route, path string) (methods []string) {
	given := strings.Split(path, "/")
	for _, route := range routes {
		if slices.EqualFunc(strings.Split(route.Path, "/"), given, isPart) {
			methods = append(methods, route.Method)
		}
	}
	if len(methods) > 0 {
		methods = append(methods, nethttp.MethodOptions)
	}
	slices.Sort(methods)
	return methods
}

// isPart says whether a part of a path is one of a route.
func isPart(ofRoute, given string) bool {
	return ofRoute == given || given != "" && strings.HasPrefix(ofRoute, ":")
}
