package client

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"
)

// get returns what a call that only reads is answered.
func get[answer any](ctx context.Context, c *Client, k call) (*answer, error) {
	a := new(answer)
	k.method, k.again, k.into = http.MethodGet, true, a
	if _, err := c.do(ctx, k); err != nil {
		return nil, err
	}
	return a, nil
}

// list yields what the pages of a list have.
func list[page, item any](ctx context.Context, c *Client, k call, items func(page) []item) iter.Seq2[item, error] {
	return func(yield func(item, error) bool) {
		for p, err := range pages[page](ctx, c, k) {
			if err != nil {
				yield(*new(item), err)
				return
			}
			for _, i := range items(p) {
				if !yield(i, nil) {
					return
				}
			}
		}
	}
}

// pages yields the pages of a list, from the first to the one whose Link names no next.
func pages[page any](ctx context.Context, c *Client, k call) iter.Seq2[page, error] {
	return func(yield func(page, error) bool) {
		k.method, k.again = http.MethodGet, true
		for {
			var p page
			k.into = &p
			header, err := c.do(ctx, k)
			if !yield(p, err) || err != nil {
				return
			}
			next, err := nextOf(header)
			if err != nil {
				yield(p, err)
				return
			}
			if next == nil {
				return
			}
			k.query = next
		}
	}
}

// nextOf returns the query of the page that a Link header names as the next, or nil.
func nextOf(header http.Header) (url.Values, error) {
	for _, link := range header.Values("Link") {
		target, parameters, _ := strings.Cut(link, ">")
		if !strings.Contains(parameters, `rel="next"`) {
			continue
		}
		u, err := url.Parse(strings.TrimPrefix(target, "<"))
		if err != nil {
			return nil, fmt.Errorf("jobtally: the Link to the next page: %w", err)
		}
		return u.Query(), nil
	}
	return nil, nil
}
