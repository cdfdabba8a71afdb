package capture

import (
	"fmt"
	"testing"
	"time"

	"jobtally/internal/events"
)

// TestDecisionsNeverChange pins the digests of a fixed history, and so every byte of its decisions, job ids included.
// A partition may be decided again at any time, by any later version; another answer there is another history.
func TestDecisionsNeverChange(t *testing.T) {
	november := time.Date(2026, 11, 30, 23, 59, 59, 999_000_000, time.UTC)
	december := time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC)
	clerk := func(n int, at time.Time) events.RequestBody {
		url := fmt.Sprintf("https://example.com/jobs/%d", n)
		return captureBody(url+"?utm_source=x", url, "Clerk", at)
	}
	unreadable := message("demo", "k", december, clerk(4, december))
	unreadable.Data = []byte("{")
	messages := []events.Message{
		message("demo", "a", november, clerk(1, november)),
		message("demo", "b", november, &events.AccountOpenRequested{Plan: "free", Limit: 1}),
		message("demo", "c", november, &events.TokenIssueRequested{TokenID: "t1", SecretHash: events.Hash()}),
		message("demo", "a", november, clerk(1, november)),
		message("demo", "d", november, clerk(1, november)),
		message("demo", "e", november, clerk(2, november)),
		message("demo", "e", december, clerk(2, december)),
		message("demo", "e", december, clerk(3, december)),
		message("demo", "f", december, &events.PlanChangeRequested{Plan: "pro", Limit: Unlimited}),
		message("demo", "g", december, clerk(3, december)),
		message("demo", "h", december, &events.TokenRevokeRequested{TokenID: "t1"}),
		message("demo", "i", december, &events.TokenRevokeRequested{TokenID: "t2"}),
		message("demo", "j", december, &events.TokenIssueRequested{TokenID: "t1", SecretHash: events.Hash()}),
		message("demo", "b", december, &events.AccountOpenRequested{Plan: "free", Limit: 1}),
		unreadable,
	}
	want := []string{
		"0-1 refused 90ba78650f44bf46dbae825ff22d8414a85dc1846d3cf15530efe6124fcdcec2",
		"0-2 opened 867685fef1d7bb3332cd1b38165951d186a9697abd695b09eb764cc3f67b2a90",
		"0-3 token_issued 6085fb0e5a5f4f5ddcd1dbf42dd70458ca2d336df3aeb94dcd9cd844a77a2d70",
		"0-4 captured 9bd80a3bd5355529a5d303125d242d8b56a6797ec15d31673d66da0f35b9a566",
		"0-5 duplicated d7fdf57880c84abda8e71b35cc67ef5267dc3a6fe251464af3962155da4638c6",
		"0-6 rejected afd18659adb1db72875f16d84fce2abbe5da6cc87688494e4042980bd5629806",
		"0-7 repeated 9273a7cc0bf6fabd0ae120b13a20415d9abb856ea42e3e60049df8af90545735",
		"0-8 refused 2dc4e9b7fcf957b5b0f523b779bc84bfcdf55747b5c27cd81120ba621707279f",
		"0-9 plan_changed aad485ab9bb76b486bded3d60c351c7eb9b497678f8c2be8f8ad9ec1e3d821bf",
		"0-10 captured dbf415b7cd82a5b45dacc3cc553c3e928a795a313122bd6fda757d62972d0df6",
		"0-11 token_revoked f921957af64736574f208ee492afb6f41f3d2a842f80ce2b93c3a60c9539a069",
		"0-12 refused 03bfd6cb902a23c7173f254378038e41a813311e50c034ab89a47fd298e4087b",
		"0-13 refused 2bbef6f39db242c7bbb9d80d8cad30458f92c1fdbd6f4fb375be654488828b49",
		"0-14 refused 53ffee9a830819829ff0a9c7a95c7a31bccd190a665cc7634ec63886e564dc93",
		"0-15 refused 3e3dc5146bc5f098293dad3c9dd27de7dd7493e61d7926b892dece8f428508f9",
	}
	for i, s := range replay(t, messages).steps {
		got := fmt.Sprintf("%s %s %s", s.decision.Position, events.OutcomeOf(s.decision.Body), s.decision.Digest)
		if got != want[i] {
			t.Errorf("decided %s, want %s\n%s", got, want[i], s.decision.Data)
		}
	}
}
