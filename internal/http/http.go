// Package http is the HTTP API: it reads and checks what clients send, turns captures into requests, and decisions
// into answers. It knows nothing of streams and databases: a node is given to it as the function values of a Backend.
//
// Every request is read on one clock, once. A capture is answered after this node folded its decision, so that
// whatever is read next on this node shows it.
package http

import (
	"context"
	"iter"
	"log"
	"log/slog"
	nethttp "net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"jobtally/internal/capture"
	"jobtally/internal/events"
	"jobtally/internal/feed"
)

// Backend is what the API needs of a node. The functions are called concurrently. Those that read answer from what
// this node has folded so far. An error that is none of the sentinels named here is logged and answered with a 500.
type Backend struct {
	// Partitions is the number of partitions of the ledger.
	Partitions int
	// Append puts a request into the ledger and returns once it is durable. With events.ErrUnavailable nothing was
	// appended, with events.ErrUnknownOutcome it may have been; with any other error nothing was.
	Append func(context.Context, *events.Request) (events.Position, error)
	// AppendAll puts requests of one account into the ledger, as one group, and returns the position of each, or its error as of
	// Append. They are taken together, or none is.
	AppendAll func(context.Context, []*events.Request) ([]events.Position, []error)
	// Await blocks until this node has folded the position, and returns the decision there. The position may lie far
	// beyond the ledger: the context ends the wait, with its error.
	Await func(context.Context, events.Position) (events.Decision, error)
	// Decision returns a folded decision, or events.ErrNotFound.
	Decision func(context.Context, events.Position) (events.Decision, error)
	// Requester returns the account whose request stands at a position that is not folded yet, or events.ErrNotFound.
	Requester func(context.Context, events.Position) (account string, err error)
	// CountsIn returns the month in which a capture of an account counts that is stamped with a month: that month, or a
	// later one where that is archived already.
	CountsIn func(account string, month events.Month) events.Month
	// Quota returns an account's count in a month, or events.ErrNotFound when there is no such account.
	Quota func(ctx context.Context, account string, month events.Month) (capture.Quota, error)
	// Month returns a month of an account, or events.ErrNotFound when there is no such account. From the current month on
	// its limit is the one of now.
	Month func(ctx context.Context, account string, month, current events.Month) (capture.AccountMonth, error)
	// Months returns up to limit months of an account before one, the latest first and without their days: the current
	// one, and those before it that have requests. It returns none when there is no such account.
	Months func(ctx context.Context, account string, current, before events.Month, limit int) ([]capture.AccountMonth, error)
	// Replay reads from the ledger what it has of a month up to the position at which the month was read. The error is
	// events.ErrNotFound when the account was erased since, and events.ErrUnavailable when the ledger does not answer.
	Replay func(ctx context.Context, account string, month *capture.AccountMonth) (capture.ReplayedMonth, error)
	// Erasures returns the decisions that erased an account, in order; none where it was never erased.
	Erasures func(ctx context.Context, account string) ([]events.Decision, error)
	// Try returns the decisions that requests of one account would get if they were the next, in order, and records nothing.
	Try func(context.Context, []*events.Request) ([]events.Decision, error)
	// Jobs returns a page of the account's jobs.
	Jobs func(ctx context.Context, account string, q capture.JobQuery) (capture.JobPage, error)
	// Lookup returns the jobs of the account that have one of some canonical URLs, by it.
	Lookup func(ctx context.Context, account string, canonicalURLs []string) (map[string]capture.StoredJob, error)
	// Account returns an account that is open, or events.ErrNotFound.
	Account func(ctx context.Context, name string) (capture.StoredAccount, error)
	// Accounts returns up to limit accounts that are open, in the order of their names, after one.
	Accounts func(ctx context.Context, after string, limit int) ([]capture.StoredAccount, error)
	// TokensOf returns up to limit tokens of an account, revoked ones included, in the order of their ids, after one.
	TokensOf func(ctx context.Context, account, after string, limit int) ([]capture.Token, error)
	// Job returns a job of the account, or events.ErrNotFound.
	Job func(ctx context.Context, account, id string) (capture.StoredJob, error)
	// Tokens returns the tokens issued under this id, revoked ones included: almost always none or one.
	Tokens func(ctx context.Context, tokenID string) ([]capture.Token, error)
	// NoteUse keeps the day on which a token was used, and LastUsed returns it, such as 2026-11-22: the last that this node
	// saw, or nothing. Both cost next to nothing.
	NoteUse  func(tokenID string, at time.Time)
	LastUsed func(tokenID string) (day string)
	// Webhooks returns the relay of this node. The error is events.ErrUnavailable while it has none.
	Webhooks func() (Webhooks, error)
	// Folded returns the sequence up to which this node has folded a partition.
	Folded func(partition int) uint64
	// CaughtUp says whether this node has folded what the ledger had when it started. Before, an answer could be older
	// than one that was given already, and so the API gives none.
	CaughtUp func() bool
	// Outdated says whether this node only reads, from a projection of another version, while the ledger is folded anew.
	// Default: never.
	Outdated func() bool
	// Events yields the events of an account after a position of its partition: those of history, and then each once this node has
	// folded it, in batches; and an empty batch at each tick. The errors are those that package feed has.
	Events func(ctx context.Context, account string, after events.Position, ticks <-chan time.Time) iter.Seq2[feed.Batch, error]
	// Ready returns nil when the node can answer, or else why not, in words for an operator.
	Ready func(context.Context) error
}

// Config is what a handler is made of.
type Config struct {
	Backend Backend
	// Plans is the catalogue: the captures a month of each plan, -1 for unlimited. Default: empty.
	Plans map[string]int64
	// Now is the clock, read once for each request. Default: time.Now.
	Now func() time.Time
	// Log hears of failures at Error, of answers with a 5xx status other than 503 at Warn, and of all others at Debug.
	// Default: nowhere.
	Log *slog.Logger
	// Observer is told of every call. Default: nobody is.
	Observer Observer
	// Limits bound what one client may take. Default: none.
	Limits Limits
	// BeatEvery is how often a stream of events says that it is there. Default: 15 seconds, since proxies end what is silent for
	// a minute or half of it.
	BeatEvery time.Duration
	// TrustedProxies are the networks of the proxies whose X-Forwarded-For is believed. Default: none is.
	TrustedProxies []netip.Prefix

	takeTimeout time.Duration    // tests shorten it
	gateNow     func() time.Time // by which rates are measured; tests stop it
}

// The time-outs of a server. The reading one covers the wait for a decision too: when it passes, net/http cancels
// the context of a request that is still being answered. So it exceeds the longest waits together, and the
// writing one exceeds it by the time that an append may take.
const (
	readHeaderTimeout = 5 * time.Second
	readTimeout       = maxPositionWait + maxWait + 20*time.Second
	writeTimeout      = readTimeout + 15*time.Second
	idleTimeout       = 2 * time.Minute
	maxHeaderBytes    = 32 << 10
	// Of HTTP/2: the requests at once on a connection, and how long nothing comes until a peer is asked whether it is there.
	maxStreams = 100
	pingAfter  = 30 * time.Second
)

// NewServer returns a server of the API with time-outs that fit its waits. Address and listener are the caller's.
func NewServer(cfg Config) *nethttp.Server {
	cfg = cfg.withDefaults()
	stopping, stop := context.WithCancel(context.Background())
	s := &nethttp.Server{
		Handler:           newHandler(cfg, stopping),
		ReadHeaderTimeout: readHeaderTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		HTTP2:             &nethttp.HTTP2Config{MaxConcurrentStreams: maxStreams, SendPingTimeout: pingAfter, WriteByteTimeout: writeTimeout},
		ErrorLog:          log.New(serverLog{cfg.Log}, "", 0),
	}
	s.RegisterOnShutdown(stop)
	return s
}

// NewHandler returns the API: every route, and a problem for whatever is no route.
func NewHandler(cfg Config) nethttp.Handler {
	return newHandler(cfg.withDefaults(), context.Background())
}

// newHandler is NewHandler for a server, whose streams of events end as soon as it is stopping.
func newHandler(cfg Config, stopping context.Context) nethttp.Handler {
	a := &api{
		backend: cfg.Backend, plans: cfg.Plans, now: cfg.Now, log: cfg.Log, observer: cfg.Observer, beatEvery: cfg.BeatEvery, takeTimeout: cfg.takeTimeout,
		replays: make(chan struct{}, maxReplays), page: sync.OnceValues(makePage), stopping: stopping,
	}
	a.limits = newLimiter(cfg)
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.IPExtractor = echo.ExtractIPDirect()
	e.HTTPErrorHandler = a.handleError
	e.Use(a.edge, crossOrigin)
	e.Use(a.limits.limited, tokenFree, exact(e))
	a.route(e)
	return e
}

func (cfg Config) withDefaults() Config {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.gateNow == nil {
		cfg.gateNow = time.Now
	}
	if cfg.takeTimeout == 0 {
		cfg.takeTimeout = takeTimeout
	}
	if cfg.BeatEvery == 0 {
		cfg.BeatEvery = beatEvery
	}
	if cfg.Backend.Outdated == nil {
		cfg.Backend.Outdated = func() bool { return false }
	}
	return cfg
}

// api holds what the handlers share. Nothing in it changes after NewHandler but what the limiter remembers, and which
// webhooks are sent a test.
type api struct {
	backend  Backend
	plans    map[string]int64
	now      func() time.Time
	log      *slog.Logger
	observer Observer
	replays  chan struct{} // holds one for each replay under way
	limits   *limiter
	page     func() (contractPage, error)
	tests    underTest

	beatEvery   time.Duration
	takeTimeout time.Duration
	stopping    context.Context // ends when the server is told to stop
}

func (a *api) route(e *echo.Echo) {
	get := func(path string, handler echo.HandlerFunc) {
		e.GET(path, handler)
		e.HEAD(path, handler)
	}
	reading := func(handler echo.HandlerFunc) echo.HandlerFunc { return a.authenticated(events.ScopeJobsRead, handler) }
	writing := func(handler echo.HandlerFunc) echo.HandlerFunc {
		return a.folding(a.authenticated(events.ScopeJobsWrite, handler))
	}
	get("/api/jobs/quota", reading(a.getQuota))
	get(historyPath, a.folding(reading(a.getHistory)))
	get(historyPath+"/:month", a.folding(reading(a.getMonth)))
	get(jobsPath, reading(a.getJobs))
	e.POST(jobsPath, writing(a.postCapture))
	e.POST(jobsPath+"/batch", writing(a.postBatch))
	get(jobsPath+"/lookup", reading(a.getLookup))
	get(eventsPath, a.folding(reading(a.getEvents)))
	get("/api/jobs/captures/:position", reading(a.getCapture))
	get("/api/jobs/:id", reading(a.getJob))
	e.PATCH("/api/jobs/:id", writing(a.patchJob))
	e.DELETE("/api/jobs/:id", writing(a.deleteJob))
	get("/api/account", a.authenticated("", a.getOwnAccount))
	a.routeWebhooks(e, get, reading, writing)
	a.routeAdministration(e, get)
	get("/livez", a.getLive)
	get("/readyz", a.getReady)
	get(contractPath, a.getContract)
	get(docsPath, a.getDocs)
	get(eventContractPath, a.getEventContract)
	get(schemasPath, a.getSchema)
}

func (a *api) routeAdministration(e *echo.Echo, get func(string, echo.HandlerFunc)) {
	const account = accountsPath + "/:" + accountParam
	get(accountsPath, a.administrator(a.getAccounts))
	e.POST(accountsPath, a.folding(a.administrator(a.postAccount)))
	get(account, a.administered(a.getAccount))
	e.DELETE(account, a.folding(a.administered(a.deleteAccount)))
	e.PUT(account+"/plan", a.folding(a.administered(a.putPlan)))
	get(account+"/tokens", a.administered(a.getTokens))
	e.POST(account+"/tokens", a.folding(a.administered(a.postToken)))
	e.DELETE(account+"/tokens/:"+tokenParam, a.folding(a.administered(a.deleteToken)))
}
