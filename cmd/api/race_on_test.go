//go:build race

package main

// buildFlags build the binaries like the test itself.
var buildFlags = []string{"-race"}
