package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"jobtally/internal/events"
)

// usesFile is the name of the file in a data directory that says on which day a node saw each token last. It is no fact of
// the ledger: other nodes keep their own, and whoever loses it knows less, and nothing wrong.
const usesFile = "token-uses.json"

// usesPause is the least time between two writings of the file, unless what was erased is to leave it.
const usesPause = time.Minute

// uses keeps the last days of use in memory. A call notes its token there for the price of a look into a map: the first
// call of a day waits for a lock besides, and none for the file.
type uses struct {
	path   string
	issued func(ctx context.Context, tokenIDs []string) (still []string, err error)
	log    *slog.Logger

	seed   maphash.Seed
	shards [64]usesShard
	erased chan struct{} // has room for one: an account was erased, and its tokens are to leave the file

	// Owned by run, and by close after it.
	stale bool // the file says something else than is known
	doubt bool // any token may be gone
}

type usesShard struct {
	mu   sync.RWMutex
	days map[string]use // by token id
}

// use is the last use of a token.
type use struct {
	day   int64 // since 1970-01-01, UTC
	fresh bool  // noted since it was last asked whether the token is issued
}

// newUses returns what the file says. One that cannot be read is as good as none.
func newUses(dir string, issued func(context.Context, []string) ([]string, error), log *slog.Logger) *uses {
	u := &uses{path: filepath.Join(dir, usesFile), issued: issued, log: log, seed: maphash.MakeSeed(), erased: make(chan struct{}, 1)}
	for i := range u.shards {
		u.shards[i].days = map[string]use{}
	}
	if err := u.load(); err != nil {
		log.Warn("the last uses of tokens are not known any more", "error", err)
	}
	return u
}

func (u *uses) load() error {
	// What a process left that died while it wrote may have the tokens of an account that was erased since.
	if err := os.Remove(u.path + unfinished); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	text, err := os.ReadFile(u.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var days map[string]string
	if err := json.Unmarshal(text, &days); err != nil {
		return fmt.Errorf("%s: %w", u.path, err)
	}
	for id, day := range days {
		at, err := time.Parse(time.DateOnly, day)
		if err != nil {
			return fmt.Errorf("%s: %w", u.path, err)
		}
		u.of(id).days[id] = use{day: dayOf(at)}
	}
	return nil
}

func (u *uses) of(id string) *usesShard {
	return &u.shards[maphash.String(u.seed, id)%uint64(len(u.shards))]
}

func dayOf(at time.Time) int64 { return at.Unix() / (24 * 60 * 60) }

// note keeps the day of a use, unless a later one is known.
func (u *uses) note(id string, at time.Time) {
	shard, day := u.of(id), dayOf(at)
	shard.mu.RLock()
	last, known := shard.days[id]
	shard.mu.RUnlock()
	if known && day <= last.day {
		return
	}
	shard.mu.Lock()
	defer shard.mu.Unlock()
	if last, known := shard.days[id]; !known || day > last.day {
		shard.days[strings.Clone(id)] = use{day: day, fresh: true} // it may be cut from a secret
	}
}

// last returns the day of the last use, such as 2026-11-22, or nothing.
func (u *uses) last(id string) string {
	shard := u.of(id)
	shard.mu.RLock()
	defer shard.mu.RUnlock()
	if last, known := shard.days[id]; known {
		return last.date()
	}
	return ""
}

func (l use) date() string { return time.Unix(l.day*24*60*60, 0).UTC().Format(time.DateOnly) }

// tokensErased has the tokens of accounts that are gone leave the file. It waits for nothing.
func (u *uses) tokensErased() {
	select {
	case u.erased <- struct{}{}:
	default:
	}
}

// run writes the file when it is due, until ctx ends. What fails is tried again when the next is due.
func (u *uses) run(ctx context.Context) {
	ticker := time.NewTicker(usesPause)
	defer ticker.Stop()
	for {
		select {
		case <-u.erased:
			u.doubt = true
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		u.save()
	}
}

// close writes the file a last time.
func (u *uses) close() {
	select {
	case <-u.erased:
		u.doubt = true
	default:
	}
	u.save()
}

func (u *uses) save() {
	if err := u.trySave(); err != nil && !errors.Is(err, events.ErrUnavailable) {
		u.log.Warn("the last uses of tokens cannot be written", "error", err)
	}
}

// trySave writes the file if it is to say something else. What is in it was issued when it was asked for last, which is when
// it was new, and since when there was doubt. What was noted a moment ago waits for the next time.
func (u *uses) trySave() error {
	if err := u.sift(); err != nil {
		return err
	}
	if !u.stale {
		return nil
	}
	days := map[string]string{}
	u.each(func(id string, last use) {
		if !last.fresh {
			days[id] = last.date()
		}
	})
	text, err := json.Marshal(days)
	if err == nil {
		err = replaceFile(u.path, append(text, '\n'))
	}
	u.stale = err != nil
	return err
}

// sift asks of the tokens that are new, or of all when there is doubt, whether they are issued, and forgets those that are
// not any more.
func (u *uses) sift() error {
	var asked []string
	u.each(func(id string, last use) {
		if u.doubt || last.fresh {
			asked = append(asked, id)
		}
	})
	if len(asked) == 0 {
		u.doubt = false
		return nil
	}
	issued, err := u.issued(context.Background(), asked)
	if err != nil {
		return err
	}
	u.doubt = false
	still := map[string]bool{}
	for _, id := range issued {
		still[id] = true
	}
	for _, id := range asked {
		u.of(id).settle(id, still[id], &u.stale)
	}
	return nil
}

// settle keeps or forgets a use, and notes whether the file is to change for it.
func (s *usesShard) settle(id string, issued bool, stale *bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	last := s.days[id]
	*stale = *stale || last.fresh || !issued
	if !issued {
		delete(s.days, id)
		return
	}
	last.fresh = false
	s.days[id] = last
}

// each calls do with every use.
func (u *uses) each(do func(id string, last use)) {
	for i := range u.shards {
		shard := &u.shards[i]
		shard.mu.RLock()
		for id, last := range shard.days {
			do(id, last)
		}
		shard.mu.RUnlock()
	}
}
