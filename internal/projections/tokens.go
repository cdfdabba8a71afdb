package projections

import (
	"context"
	"database/sql"
	"encoding/json"
	"strings"
	"time"

	"jobtally/internal/capture"
	"jobtally/internal/events"
)

// issue writes the row of a token.
func (b *batch) issue(d *events.Decision, body *events.TokenIssued) error {
	expires := ""
	if !body.ExpiresAt.IsZero() {
		expires = body.ExpiresAt.UTC().Format(time.RFC3339Nano)
	}
	_, err := b.db.writes.token.Exec(body.TokenID, d.Account, body.SecretHash[:], d.Time.Format(time.RFC3339Nano),
		strings.Join(body.Scopes, " "), body.Name, body.LastFour, expires)
	return err
}

// scanToken reads tokenColumns.
func scanToken(scan func(...any) error) (t capture.Token, err error) {
	var hash []byte
	var issued, scopes, expires string
	if err := scan(&t.ID, &t.Account, &hash, &issued, &scopes, &t.Name, &t.LastFour, &expires, &t.Revoked); err != nil {
		return t, err
	}
	copy(t.SecretHash[:], hash)
	t.Scopes = strings.Fields(scopes)
	if t.IssuedAt, err = parseTime(issued); err != nil || expires == "" {
		return t, err
	}
	t.ExpiresAt, err = parseTime(expires)
	return t, err
}

func (db *DB) scanTokens(rows *sql.Rows) (tokens []capture.Token, err error) {
	defer rows.Close()
	for rows.Next() {
		t, err := scanToken(rows.Scan)
		if err != nil {
			return nil, db.readError(err)
		}
		tokens = append(tokens, t)
	}
	return tokens, db.readError(rows.Err())
}

// OnErasure has f called after each commit that erases an account. Call it before anything is folded; f waits for nothing.
func (db *DB) OnErasure(f func()) { db.onErasure = f }

// Issued returns those of some token ids under which a token is issued, in theory more than once: one that is not there any
// more was erased.
func (db *DB) Issued(ctx context.Context, ids []string) (issued []string, err error) {
	if err := db.hold(&db.reads.issuedOf); err != nil {
		return nil, err
	}
	defer db.pass()
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	rows, err := db.reads.issuedOf.QueryContext(context.WithoutCancel(ctx), string(list))
	err = scanAll(rows, err, func(rows *sql.Rows) error {
		var id string
		err := rows.Scan(&id)
		issued = append(issued, id)
		return err
	})
	return issued, db.readError(err)
}
