-- The projection: what the decisions of a prefix of the ledger amount to. It is a cache. Every row can be made again
-- from the ledger, so there are no migrations: another user_version means another file.

-- The ledger that this file is a projection of: one row.
CREATE TABLE ledger (
  only       INTEGER PRIMARY KEY CHECK (only = 1),
  id         TEXT    NOT NULL,
  partitions INTEGER NOT NULL CHECK (partitions > 0)
) STRICT;

-- How far each partition is folded. The digest is the sum of those of all decisions up to there that are not erased: two
-- nodes at one position have one. archived is the last month that is archived, or empty, and archive the digest of the
-- decision that archived it.
CREATE TABLE partitions (
  partition INTEGER PRIMARY KEY,
  sequence  INTEGER NOT NULL CHECK (sequence >= 0),
  digest    BLOB    NOT NULL CHECK (length(digest) = 32),
  archived  TEXT    NOT NULL,
  archive   BLOB    NOT NULL CHECK (length(archive) = 32)
) STRICT;

-- The decisions themselves, enough of each to append it again byte for byte. data is the JSON of the body.
CREATE TABLE decisions (
  partition      INTEGER NOT NULL,
  sequence       INTEGER NOT NULL CHECK (sequence > 0),
  account        TEXT    NOT NULL,
  request_id     TEXT    NOT NULL,
  type           TEXT    NOT NULL,
  time           TEXT    NOT NULL,
  request_digest BLOB    NOT NULL CHECK (length(request_digest) = 32),
  digest         BLOB    NOT NULL CHECK (length(digest) = 32),
  payload_hash   BLOB             CHECK (length(payload_hash) = 32), -- of the first answer to a capture's request id
  data           BLOB    NOT NULL,
  PRIMARY KEY (partition, sequence)
) STRICT, WITHOUT ROWID;

-- The index of request ids: a retry finds its first answer here, at any later time.
CREATE UNIQUE INDEX first_answers ON decisions (account, request_id) WHERE payload_hash IS NOT NULL;

-- The other decisions. With the index above it finds all of an account.
CREATE INDEX other_answers ON decisions (account) WHERE payload_hash IS NULL;

-- opened and planned are the sequences of the decisions that opened the account, and that set its plan. The jobs whose
-- content is of a decision after indexed are loose: not in the word index yet. There are never chunkSize of them.
CREATE TABLE accounts (
  name        TEXT    PRIMARY KEY,
  partition   INTEGER NOT NULL,
  plan        TEXT    NOT NULL,
  quota_limit INTEGER NOT NULL CHECK (quota_limit >= -1),
  digest      BLOB    NOT NULL CHECK (length(digest) = 32), -- the last link of the account's chain
  opened      INTEGER NOT NULL,
  planned     INTEGER NOT NULL,
  indexed     INTEGER NOT NULL,
  loose       INTEGER NOT NULL CHECK (loose >= 0)
) STRICT, WITHOUT ROWID;

-- The limit of each account at the end of each month in which it was set.
CREATE TABLE limits (
  account     TEXT    NOT NULL,
  month       TEXT    NOT NULL,
  quota_limit INTEGER NOT NULL CHECK (quota_limit >= -1),
  PRIMARY KEY (account, month)
) STRICT, WITHOUT ROWID;

-- The count of each month of each account, open or not. used is the number of its jobs captured in that month, and
-- extension of these the ones that came through the browser extension. digest is that of its last decision in the month.
CREATE TABLE months (
  account    TEXT    NOT NULL,
  month      TEXT    NOT NULL CHECK (month GLOB '[0-9][0-9][0-9][0-9]-[0-1][0-9]'),
  partition  INTEGER NOT NULL,
  requests   INTEGER NOT NULL CHECK (requests >= 0),
  used       INTEGER NOT NULL CHECK (used >= 0),
  duplicated INTEGER NOT NULL CHECK (duplicated >= 0),
  rejected   INTEGER NOT NULL CHECK (rejected >= 0),
  repeated   INTEGER NOT NULL CHECK (repeated >= 0),
  extension  INTEGER NOT NULL CHECK (extension >= 0),
  first      INTEGER NOT NULL, -- sequence
  last       INTEGER NOT NULL, -- sequence
  digest     BLOB    NOT NULL CHECK (length(digest) = 32),
  PRIMARY KEY (account, month)
) STRICT, WITHOUT ROWID;

-- The accounts of a month, in order: closing it goes through them.
CREATE INDEX accounts_of_month ON months (partition, month, account);

-- The captures of each account on each day, UTC, of the month that they count in.
CREATE TABLE days (
  account    TEXT    NOT NULL,
  month      TEXT    NOT NULL,
  day        TEXT    NOT NULL, -- 2026-11-22
  captured   INTEGER NOT NULL CHECK (captured >= 0),
  duplicated INTEGER NOT NULL CHECK (duplicated >= 0),
  rejected   INTEGER NOT NULL CHECK (rejected >= 0),
  PRIMARY KEY (account, month, day)
) STRICT, WITHOUT ROWID;

-- The totals of each month of each partition, accounts that were erased since included.
CREATE TABLE totals (
  partition  INTEGER NOT NULL,
  month      TEXT    NOT NULL,
  requests   INTEGER NOT NULL CHECK (requests >= 0),
  captured   INTEGER NOT NULL CHECK (captured >= 0),
  duplicated INTEGER NOT NULL CHECK (duplicated >= 0),
  rejected   INTEGER NOT NULL CHECK (rejected >= 0),
  repeated   INTEGER NOT NULL CHECK (repeated >= 0),
  first      INTEGER NOT NULL, -- sequence, 0 where there is no request
  last       INTEGER NOT NULL, -- sequence
  PRIMARY KEY (partition, month)
) STRICT, WITHOUT ROWID;

-- The months that are archived: where the decision on each stands.
CREATE TABLE archives (
  partition INTEGER NOT NULL,
  month     TEXT    NOT NULL,
  sequence  INTEGER NOT NULL,
  PRIMARY KEY (partition, month)
) STRICT, WITHOUT ROWID;

-- The erasures of accounts, and how many requests before each went with it.
CREATE TABLE erasures (
  account   TEXT    NOT NULL,
  partition INTEGER NOT NULL,
  sequence  INTEGER NOT NULL,
  requests  INTEGER NOT NULL CHECK (requests >= 0),
  PRIMARY KEY (account, sequence)
) STRICT, WITHOUT ROWID;

-- The accounts of a partition that were erased: what is left of them is removed from the ledger.
CREATE INDEX erasures_of_partition ON erasures (partition, account, sequence);

-- What stays of the months of an erased account: its leaf in their digests.
CREATE TABLE erased_months (
  partition INTEGER NOT NULL,
  month     TEXT    NOT NULL,
  account   TEXT    NOT NULL,
  sequence  INTEGER NOT NULL, -- of the erasure
  leaf      BLOB    NOT NULL CHECK (length(leaf) = 32),
  PRIMARY KEY (partition, month, account, sequence)
) STRICT, WITHOUT ROWID;

-- The jobs in each tracker. sequence is that of the decision that captured it, changed of the one that has its content:
-- the same until it is updated. status, via and company are of the content; company is a hash of it in lower case.
CREATE TABLE jobs (
  account   TEXT    NOT NULL,
  sequence  INTEGER NOT NULL,
  partition INTEGER NOT NULL,
  id        TEXT    NOT NULL,
  url_key   BLOB    NOT NULL CHECK (length(url_key) = 16), -- of the canonical URL
  month     TEXT    NOT NULL,                              -- that it counts in
  version   INTEGER NOT NULL CHECK (version >= 1),
  changed   INTEGER NOT NULL,
  status    TEXT    NOT NULL,
  via       TEXT    NOT NULL,
  company   BLOB    NOT NULL CHECK (length(company) = 8),
  PRIMARY KEY (account, sequence)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX jobs_by_id ON jobs (account, id);

-- One URL is one job.
CREATE UNIQUE INDEX jobs_by_url ON jobs (account, url_key);

-- The jobs that were updated. The others are found by their sequence.
CREATE INDEX updated_jobs ON jobs (account, changed) WHERE version > 1;

-- The word index of an account, in chunks of chunkSize jobs: whenever so many are loose they become the next chunk. jobs has
-- their sequences. A job that is updated later is in a later chunk, or loose; what the earlier one says of it is outdated.
CREATE TABLE chunks (
  account TEXT    NOT NULL,
  chunk   INTEGER NOT NULL, -- the sequence of the decision that filled it
  jobs    BLOB    NOT NULL,
  PRIMARY KEY (account, chunk)
) STRICT, WITHOUT ROWID;

-- The words of a chunk, in order, in blocks: each word with the places of its jobs in the chunk. With a rowid the key is an
-- index of its own, which is narrow, and the blocks need no overflow pages.
CREATE TABLE words (
  account TEXT    NOT NULL,
  chunk   INTEGER NOT NULL,
  first   TEXT    NOT NULL, -- word of the block
  block   BLOB    NOT NULL,
  PRIMARY KEY (account, chunk, first)
) STRICT;

CREATE TABLE tokens (
  id          TEXT    NOT NULL,
  account     TEXT    NOT NULL,
  secret_hash BLOB    NOT NULL CHECK (length(secret_hash) = 32),
  issued      TEXT    NOT NULL,
  scopes      TEXT    NOT NULL, -- apart by a space
  name        TEXT    NOT NULL,
  last_four   TEXT    NOT NULL,
  expires     TEXT    NOT NULL, -- empty: never
  revoked     INTEGER NOT NULL CHECK (revoked IN (0, 1)),
  PRIMARY KEY (id, account)
) STRICT, WITHOUT ROWID;

CREATE INDEX tokens_of_account ON tokens (account, id);
