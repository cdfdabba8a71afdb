package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jobtally/internal/token"
)

// secretJob is a job of which each field can be told from all others in a file.
func secretJob(account string, n int) string {
	text, err := json.Marshal(map[string]string{
		"source_url": fmt.Sprintf("https://www.secret-%s.example.com/jobs/%d?utm_source=secret-%s-source", account, n, account),
		"title":      "secret-" + account + "-title", "company": "secret-" + account + "-company", "notes": "secret-" + account + "-notes",
		"location": "secret-" + account + "-location", "description": "secret-" + account + "-description",
	})
	if err != nil {
		panic(err)
	}
	return string(text)
}

// keepSecrets captures n jobs into an account.
func (c client) keepSecrets(t *testing.T, account string, n int) {
	t.Helper()
	together(n, func(i int) any {
		c.post(t, secretJob(account, i), fmt.Sprintf("Idempotency-Key: secret-%s-key-%d", account, i)).wants(t, http.StatusCreated)
		return nil
	})
}

// secretsOf are what files may hold of an account, but its name: what was captured, and the hash of its token.
func secretsOf(t *testing.T, account, secret string) []string {
	t.Helper()
	held, err := token.Parse(secret)
	if err != nil {
		t.Fatal(err)
	}
	hash := held.Hash()
	return []string{"secret-" + account, held.ID(), hash.String(), string(hash[:])}
}

// found returns the files of the service in which one of the texts stands.
func (s *service) found(t *testing.T, texts []string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(s.data, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // the server just wrote one anew
		}
		content, _ := os.ReadFile(path)
		for _, text := range texts {
			if bytes.Contains(content, []byte(text)) {
				files = append(files, fmt.Sprintf("%q in %s", text, path))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// wantsGone waits until none of the texts is in any file.
func (s *service) wantsGone(t *testing.T, texts []string) {
	t.Helper()
	for begun := time.Now(); ; {
		files := s.found(t, texts)
		if len(files) == 0 {
			return
		}
		if time.Since(begun) > patience {
			t.Fatalf("left: %s\n%s", files, s.stderr.String())
		}
	}
}

// admin opens an account with a token that may act on any.
func (s *service) admin(t *testing.T) client {
	t.Helper()
	s.operator(t, "account", "open", "ops")
	return client{s.url, s.operator(t, "token", "issue", "--account", "ops", "--scope", "admin"), s.http}
}

func (c client) erase(t *testing.T, account string, headers ...string) reply {
	t.Helper()
	r, err := c.call(http.MethodDelete, "/api/admin/accounts/"+account, nil, headers...)
	if err != nil {
		t.Error(err)
	}
	return r
}

func TestAnErasedAccountIsGoneFromTheAPIAndFromEveryFile(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	ops := s.admin(t)
	clients := s.accounts(t, 100, "anna", "bob")
	anna, bob := clients[0], clients[1]
	anna.keepSecrets(t, "anna", 20)
	bob.keepSecrets(t, "bob", 20)
	captured := anna.post(t, secretJob("anna", 100)).wants(t, http.StatusCreated)
	secrets := secretsOf(t, "anna", anna.token)
	for i, text := range append(secrets, "secret-anna-title", "secret-anna-company", "secret-anna-notes", "secret-anna-key", "secret-anna.example.com", "secret-anna-source") {
		if len(s.found(t, []string{text})) == 0 {
			t.Fatalf("text %d is in no file: nothing can be shown", i)
		}
	}

	anna.erase(t, "anna").wantsProblem(t, http.StatusForbidden, "scope_missing")
	ops.erase(t, "nobody").wantsProblem(t, http.StatusNotFound, "account_unknown")
	anna.get(t, "/api/jobs/quota").wants(t, http.StatusOK)

	erased := ops.erase(t, "anna", "Idempotency-Key: erase-1").wants(t, http.StatusOK)
	erased.wantsReceipt(t)
	if !strings.Contains(erased.body, `"outcome":"erased","account":"anna","requests":23,"months":[{"month":"`) || !strings.Contains(erased.body, `"captured":21,`) {
		t.Errorf("erased: %s", erased.body)
	}
	anna.get(t, "/api/jobs/quota").wantsProblem(t, http.StatusUnauthorized, "token_unknown")
	anna.capture(t, jobURL(1)).wantsProblem(t, http.StatusUnauthorized, "token_unknown")
	s.wantsGone(t, secrets)
	ops.erase(t, "anna").wantsSame(t, erased)
	s.operator(t, "account", "open", "carl")
	s.settle(t)
	ops.erase(t, "carl", "Prefer: respond-async").wants(t, http.StatusAccepted)

	t.Log("an account of the same name is another: it has nothing of the first")
	again := s.accounts(t, 100, "anna")[0]
	again.get(t, "/api/jobs/captures/"+captured.Receipt.Position).wantsProblem(t, http.StatusNotFound, "capture_not_found")
	again.get(t, captured.header.Get("Location")).wantsProblem(t, http.StatusNotFound, "job_not_found")
	if r := again.post(t, secretJob("anna", 100)).wants(t, http.StatusCreated); r.Quota.Used != 1 {
		t.Errorf("the count goes on: %s", r.body)
	}
	ops.erase(t, "anna", "Idempotency-Key: erase-1").wantsSame(t, erased)
	again.get(t, "/api/jobs/quota").wants(t, http.StatusOK)
	ops.erase(t, "anna").wants(t, http.StatusOK)
	s.wantsGone(t, secretsOf(t, "anna", again.token))

	bob.get(t, "/api/jobs/quota").wants(t, http.StatusOK)
	s.stop(t)
	if files := s.found(t, secrets); len(files) > 0 {
		t.Errorf("after a stop: %s", files)
	}
	s.operator(t, "audit")
	if len(s.found(t, []string{"secret-bob-title"})) == 0 {
		t.Error("nothing of the other account is left")
	}
}

func TestTheDemoAccountStaysErased(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	s := start(t, data, midNovember)
	s.capture(t, jobURL(1)).wants(t, http.StatusCreated)
	s.operator(t, "erase", "--account", "demo", "--yes")
	for range 2 {
		s.get(t, "/api/jobs/quota").wantsProblem(t, http.StatusUnauthorized, "token_unknown")
		s.stop(t)
		s = start(t, data, midNovember)
		if got := s.stdout.String(); got != "" {
			t.Errorf("the next start printed\n%s", got)
		}
	}
	s.stop(t)
	if err := os.Remove(s.projection()); err != nil {
		t.Fatal(err)
	}
	s = start(t, data, midNovember)
	s.get(t, "/api/jobs/quota").wantsProblem(t, http.StatusUnauthorized, "token_unknown")
}

// Captures that are under way when their account is erased are answered, and nothing of them stays.
func TestCapturesUnderWayAreErasedToo(t *testing.T) {
	t.Parallel()
	s := startBinary(t, t.TempDir())
	ops := s.admin(t)
	for round := range 3 {
		anna := s.accounts(t, -1, "anna")[0]
		var sent, refused atomic.Int64
		var capturing sync.WaitGroup
		enough := make(chan struct{})
		for range 16 {
			capturing.Go(func() {
				for {
					n := sent.Add(1)
					if n == 100 {
						close(enough)
					}
					r := anna.post(t, secretJob("anna", int(n)))
					switch {
					case r.status == http.StatusCreated:
						continue
					case r.status == http.StatusNotFound && r.Code == "account_unknown":
						refused.Add(1)
					case r.status != http.StatusUnauthorized || r.Code != "token_unknown":
						t.Errorf("answered %d %s", r.status, r.body)
					}
					return
				}
			})
		}
		<-enough
		ops.erase(t, "anna").wants(t, http.StatusOK)
		capturing.Wait()
		t.Logf("round %d: %d sent, %d of them refused by decision", round, sent.Load(), refused.Load())
		s.wantsGone(t, secretsOf(t, "anna", anna.token))
	}
	s.stop(t)
	s.operator(t, "audit")
}

// TestKilledWhileAnAccountIsErased kills the service at any moment of an erasure. The next start finishes what was asked
// for; of others nothing is lost.
func TestKilledWhileAnAccountIsErased(t *testing.T) {
	t.Parallel()
	const jobs = 12
	data, seed := t.TempDir(), rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	s := startBinary(t, data)
	ops := s.admin(t)
	bob := s.accounts(t, -1, "bob")[0]
	bob.keepSecrets(t, "bob", jobs)
	for round := range *kills {
		name := fmt.Sprintf("anna-%d", round)
		anna := s.accounts(t, -1, name)[0]
		anna.keepSecrets(t, name, jobs)
		secrets := secretsOf(t, name, anna.token)
		began := make(chan struct{})
		asked := make(chan bool, 1)
		go func() {
			close(began)
			r, err := ops.call(http.MethodDelete, "/api/admin/accounts/"+name, nil)
			asked <- err == nil && r.status == http.StatusOK
		}()
		<-began
		most := []time.Duration{10 * time.Millisecond, 250 * time.Millisecond}[round%2] // until it is decided; until all is removed
		later := time.Duration(random.Int64N(int64(most)))
		select {
		case <-time.After(later):
		case <-s.ended:
		}
		s.kill(t)
		answered := <-asked
		s = startBinary(t, data)
		ops.url, bob.url = s.url, s.url
		t.Logf("killed after %s, answered: %t, left: %d", later, answered, len(s.found(t, secrets)))
		if answered {
			client{s.url, anna.token, s.http}.get(t, "/api/jobs/quota").wantsProblem(t, http.StatusUnauthorized, "token_unknown")
		} else {
			ops.erase(t, name).wants(t, http.StatusOK)
		}
		s.wantsGone(t, secrets)
		if r := bob.get(t, "/api/jobs/quota").wants(t, http.StatusOK); r.Used != jobs {
			t.Errorf("the other account: %s", r.body)
		}
	}
	s.stop(t)
	s.operator(t, "audit")
	for name, db := range map[string]string{"the erased have": "name LIKE 'anna%'", "others lost": "name = 'bob' AND NOT EXISTS (SELECT 1 FROM jobs WHERE account = 'bob')"} {
		if n := number(t, s.readProjection(t), "SELECT count(*) FROM accounts WHERE "+db); n != 0 {
			t.Errorf("%s accounts: %d", name, n)
		}
	}
}
