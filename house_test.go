// Package jobtally_test checks what holds for the repository as a whole: which package may import what, that the
// compose file starts what is there, and that what the documents name exists.
package jobtally_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// house says which packages of the module each package may import, and which libraries it alone may use.
var house = map[string]struct {
	inside []string
	alone  []string // with whom it shares one, that one names it too
}{
	"cmd/api":               {inside: []string{"internal/cli", "internal/events", "internal/http", "internal/node", "internal/telemetry", "internal/token"}},
	"cmd/projector":         {inside: []string{"internal/archive", "internal/capture", "internal/cli", "internal/events", "internal/ledger", "internal/near", "internal/node", "internal/projections", "internal/relay", "internal/replay", "internal/telemetry", "internal/token", "internal/webhook"}},
	"internal/cli":          {alone: []string{"github.com/alecthomas/kong"}},
	"internal/node":         {inside: []string{"internal/capture", "internal/events", "internal/feed", "internal/ledger", "internal/projections", "internal/relay", "internal/replay"}},
	"internal/http":         {inside: []string{"docs", "internal/capture", "internal/contract", "internal/events", "internal/feed", "internal/near", "internal/token", "internal/webhook"}, alone: []string{"github.com/labstack/echo"}},
	"internal/projections":  {inside: []string{"internal/capture", "internal/events"}, alone: []string{"github.com/mattn/go-sqlite3"}},
	"internal/ledger":       {inside: []string{"internal/events"}, alone: []string{"github.com/nats-io/"}},
	"internal/relay":        {inside: []string{"consumer", "internal/events", "internal/webhook"}, alone: []string{"github.com/nats-io/", "github.com/ThreeDotsLabs/"}},
	"internal/telemetry":    {inside: []string{"internal/events", "internal/feed", "internal/node", "internal/relay", "internal/webhook"}, alone: []string{"github.com/prometheus/", "go.opentelemetry.io/"}},
	"internal/archive":      {inside: []string{"internal/capture", "internal/events", "internal/replay"}},
	"internal/replay":       {inside: []string{"internal/capture", "internal/events"}},
	"internal/capture":      {inside: []string{"internal/events"}},
	"internal/feed":         {inside: []string{"internal/events"}},
	"internal/token":        {inside: []string{"internal/events"}},
	"internal/webhook":      {inside: []string{"internal/events"}},
	"internal/events":       {},
	"internal/near":         {},
	"internal/contract":     {},
	"internal/contracttest": {inside: []string{"docs", "internal/contract", "internal/events"}, alone: []string{"github.com/santhosh-tekuri/jsonschema"}},
	"docs":                  {},
	"client":                {},
	"client/example":        {inside: []string{"client"}},
	"consumer":              {inside: []string{"internal/events"}, alone: []string{"github.com/nats-io/", "github.com/ThreeDotsLabs/"}},
	"consumer/example":      {inside: []string{"consumer"}, alone: []string{"github.com/nats-io/", "github.com/ThreeDotsLabs/", "github.com/prometheus/"}},
}

// pure are the packages that import the standard library only.
var pure = []string{"internal/events", "internal/capture", "internal/token", "client"}

type listed struct {
	ImportPath string
	Name       string
	Imports    []string
}

func packages(t *testing.T) (packages []listed) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Imports", "./client/...", "./cmd/...", "./consumer/...", "./docs", "./internal/...").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsKeepTheWalls(t *testing.T) {
	found := packages(t)
	if len(found) != len(house) {
		t.Errorf("the module has %d packages, the house %d: a new one needs a place here", len(found), len(house))
	}
	for _, p := range found {
		name := strings.TrimPrefix(p.ImportPath, "jobtally/")
		rule, ok := house[name]
		if !ok {
			t.Errorf("package %s has no place in the house", name)
			continue
		}
		for _, imported := range p.Imports {
			if inside, ok := strings.CutPrefix(imported, "jobtally/"); ok && !slices.Contains(rule.inside, inside) {
				t.Errorf("%s imports %s, which it may not know", name, inside)
			}
			if slices.Contains(pure, name) && strings.Contains(strings.Split(imported, "/")[0], ".") {
				t.Errorf("%s imports %s, but is to need the standard library only", name, imported)
			}
			for owner, other := range house {
				if owner != name && areOf(other.alone, imported) && !areOf(rule.alone, imported) {
					t.Errorf("%s imports %s, which only %s may use", name, imported, owner)
				}
			}
		}
	}
}

// areOf says whether an import is one of some libraries.
func areOf(libraries []string, imported string) bool {
	return slices.ContainsFunc(libraries, func(library string) bool { return strings.HasPrefix(imported, library) })
}

func TestNoPackageIsCalledAfterNothing(t *testing.T) {
	vague := regexp.MustCompile(`^(util|utils|common|helpers?|misc|models?|types?|services?|repositor(y|ies))$`)
	for _, p := range packages(t) {
		if vague.MatchString(p.Name) {
			t.Errorf("package %s is named by nothing that it owns", p.ImportPath)
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	const most = 400
	err := filepath.WalkDir("internal", func(path string, d os.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		if lines := bytes.Count(text, []byte("\n")); lines > most {
			t.Errorf("%s has %d lines, more than %d: which of its concerns is a file of its own?", path, lines, most)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestComposeStartsWhatIsThere(t *testing.T) {
	text, err := os.ReadFile("docker-compose.yml")
	if err != nil {
		t.Fatal(err)
	}
	var compose struct {
		Services map[string]struct {
			Image, Build string
			Command      []string
			Entrypoint   []string
			Volumes      []string
			Environment  map[string]string
			DependsOn    map[string]struct{ Condition string } `yaml:"depends_on"`
		}
		Volumes map[string]any
		Configs map[string]struct{ File string }
	}
	if err := yaml.Unmarshal(text, &compose); err != nil {
		t.Fatal(err)
	}
	for _, service := range []string{"nats", "init", "projector-1", "projector-2", "api", "operator"} {
		if _, ok := compose.Services[service]; !ok {
			t.Errorf("service %s is missing", service)
		}
	}
	for name, s := range compose.Services {
		for other := range s.DependsOn {
			if _, ok := compose.Services[other]; !ok {
				t.Errorf("service %s depends on %s, which is not there", name, other)
			}
		}
		for _, volume := range s.Volumes {
			if source, _, _ := strings.Cut(volume, ":"); compose.Volumes != nil {
				if _, ok := compose.Volumes[source]; !ok {
					t.Errorf("service %s mounts %s, which is not there", name, source)
				}
			}
		}
	}
	config, err := os.ReadFile(compose.Configs["nats"].File)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(config, []byte("sync_interval: always")) {
		t.Error("the NATS server does not sync always: a power failure would lose what was acknowledged")
	}
	for _, password := range regexp.MustCompile(`\$(NATS_([A-Z]+)_PASSWORD)`).FindAllSubmatch(config, -1) {
		variable, user := string(password[1]), strings.ToLower(string(password[2]))
		if compose.Services["nats"].Environment[variable] != fmt.Sprintf(`"${%s:-try-%s}"`, variable, user) {
			t.Errorf("the NATS server is not given %s in quotes", variable)
		}
	}
	for service, user := range map[string]string{"init": "operator", "projector-1": "projector", "projector-2": "projector", "api": "api", "operator": "operator"} {
		want := fmt.Sprintf("nats://%s:${NATS_%s_PASSWORD:-try-%s}@nats:4222", user, strings.ToUpper(user), user)
		if is := compose.Services[service].Environment["JOBTALLY_NATS"]; is != want {
			t.Errorf("service %s connects to %s, want %s", service, is, want)
		}
	}
	if exec.Command("docker", "compose", "version").Run() == nil {
		if out, err := exec.Command("docker", "compose", "config", "--quiet").CombinedOutput(); err != nil {
			t.Errorf("docker compose config: %v\n%s", err, out)
		}
	}
}

// TestImageHasWhatIsBuilt takes what the Dockerfile does, of what .dockerignore lets through, and looks for all that the commands
// are made of.
func TestImageHasWhatIsBuilt(t *testing.T) {
	dockerfile, err := os.ReadFile("Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	ignored, err := os.ReadFile(".dockerignore")
	if err != nil {
		t.Fatal(err)
	}
	image := t.TempDir()
	for _, line := range regexp.MustCompile(`(?m)^COPY ([^-].*)$`).FindAllStringSubmatch(string(dockerfile), -1) {
		paths := strings.Fields(line[1])
		into := image + "/" + paths[len(paths)-1] // which ends with a slash if it is a directory
		for _, path := range paths[:len(paths)-1] {
			top, _, _ := strings.Cut(path, "/")
			if !strings.Contains("\n"+string(ignored), "\n!"+top+"\n") {
				t.Errorf(".dockerignore keeps %s from the Dockerfile", path)
			}
			if out, err := exec.Command("sh", "-c", `mkdir -p "${1%/*}" && cp -r "$0" "$1"`, path, into).CombinedOutput(); err != nil {
				t.Fatalf("COPY %s: %s", path, out)
			}
		}
	}
	var wrong strings.Builder
	list := exec.Command("go", "list", "-deps", "./cmd/...")
	list.Dir, list.Stderr = image, &wrong
	if err := list.Run(); err != nil {
		t.Errorf("what the Dockerfile copies cannot be built: %v\n%s", err, &wrong)
	}
}

// TestDocumentsNameWhatExists follows the relative links of the documents, and the test names that they give as
// proof of a promise.
func TestDocumentsNameWhatExists(t *testing.T) {
	documents, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	adrs, _ := filepath.Glob("docs/adr/*.md")
	tests := testNames(t)
	link, name := regexp.MustCompile(`\]\(([^)#:]+)[)#]`), regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`")
	for _, path := range append(append(documents, adrs...), "README.md", "CHANGELOG.md", "deploy/nats/README.md") {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(path), string(m[1]))); err != nil {
				t.Errorf("%s links to %s: %v", path, m[1], err)
			}
		}
		for _, m := range name.FindAllSubmatch(text, -1) {
			if !tests[string(m[1])] {
				t.Errorf("%s names %s, which is no test", path, m[1])
			}
		}
	}
}

func testNames(t *testing.T) map[string]bool {
	t.Helper()
	names, function := map[string]bool{}, regexp.MustCompile(`^func ((?:Test|Fuzz)\w+)\(`)
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			if m := function.FindStringSubmatch(lines.Text()); m != nil {
				names[m[1]] = true
			}
		}
		return lines.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return names
}
