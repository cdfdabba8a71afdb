package http

import (
	"slices"
	"strings"
	"sync"
	"testing"

	"jobtally/internal/contracttest"
)

// theContract is what the tests of this package are held to.
var theContract = sync.OnceValues(contracttest.New)

func wantsByContract(t *testing.T, x *contracttest.Exchange) {
	t.Helper()
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Check(x); err != nil {
		t.Errorf("not by the contract: %v", err)
	}
}

func TestTheContractHasEveryProblem(t *testing.T) {
	c, err := theContract()
	if err != nil {
		t.Fatal(err)
	}
	var said []string
	for _, s := range c.Schemas {
		if !strings.HasPrefix(s.Name, "Problem") || s.Name == "Problem" {
			continue
		}
		fixed := map[string]any{}
		for _, p := range s.Properties() {
			if len(p.Schema.Enum) == 1 {
				fixed[p.Name] = p.Schema.Enum[0]
			}
		}
		name, _ := fixed["code"].(string)
		said = append(said, name)
		k, known := kinds[code(name)]
		if !known {
			t.Errorf("code %s of the contract is none", name)
		} else if fixed["status"] != k.status || fixed["title"] != k.title || fixed["type"] != typePrefix+name {
			t.Errorf("%s is %v in the contract, and %+v", name, fixed, k)
		}
	}
	for name := range kinds {
		if !slices.Contains(said, string(name)) {
			t.Errorf("code %s is not in the contract", name)
		}
	}
}

var contractSays = map[string]string{
	contractPath: "Counts the jobs that people capture", docsPath: "Counts the jobs that people capture", eventContractPath: "asyncapi: 3",
	"/schemas/jobtally.job.captured.v1.json": "A job came into the tracker",
}

func TestTheContractIsServed(t *testing.T) {
	n := newNode(t)
	for path, media := range map[string]string{
		contractPath: "application/yaml", docsPath: "text/html; charset=utf-8", eventContractPath: "application/yaml",
		"/schemas/jobtally.job.captured.v1.json": "application/schema+json",
	} {
		x := n.send(t, "GET", path, "", "Authorization: none")
		x.wantsHeader(t, "Content-Type: "+media, "Cache-Control: no-cache")
		if x.StatusCode != 200 || !strings.Contains(x.body, contractSays[path]) {
			t.Errorf("%s: %d %.200s", path, x.StatusCode, x.body)
		}
		n.send(t, "GET", path, "", "If-None-Match: "+x.Header.Get("ETag")).wants(t, 304, "")
		if x := n.send(t, "HEAD", path, ""); x.StatusCode != 200 {
			t.Errorf("HEAD %s: %d", path, x.StatusCode)
		}
	}
}

func TestSchemasThatAreNotThere(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{"jobtally.job.captured.v2.json", "jobtally.job.captured.v1", "..%2Fopenapi.yaml", "%2e%2e", "", "."} {
		n.send(t, "GET", "/schemas/"+name, "").wantsProblem(t, codeNotFound)
	}
}
