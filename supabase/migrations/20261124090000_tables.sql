-- The ledger: what was approved, which period took it, what was sent, and what proves it.
--
-- Tables hold facts; each change of state is one function (the later migrations). Nothing here
-- needs an extension, so that it runs on any Postgres from 15 on.
--
-- Who may what: every table has row level security and no policy, so that only service_role reads
-- it; nobody writes but the functions, which run as the owner of this schema.

create schema kvitt;
comment on schema kvitt is 'From approved records to a receipt. See docs/ledger.md.';

revoke all on schema kvitt from public;
grant usage on schema kvitt to service_role;

-- ---------------------------------------------------------------------------------------------
-- States. Each value with the values that may follow it; the guards below hold them to it.

create type kvitt.period_state as enum (
  'due',         -- → collecting, skipped          planned; claimable once its time has come
  'collecting',  -- → collected, failed, skipped   the Edge Function takes records, page by page
  'collected',   -- → exporting, verified, failed  the batch is frozen (verified: it was empty)
  'exporting',   -- → exported, uncertain, failed  chunks go to the vendor
  'exported',    -- → verified, uncertain, failed  each chunk is confirmed, and posted
  'verified',    -- →                              read back equals taken; the receipt stands
  'uncertain',   -- → exporting, failed            a reply is missing; not before not_before
  'failed',      -- → collecting, exporting, skipped   a person must mend it, then it may go on
  'skipped'      -- →                              a person decided, and said why
);

create type kvitt.chunk_state as enum (
  'intended',    -- → confirmed, refused, unsent, uncertain   written before the call
  'confirmed',   -- →                                         the vendor has it
  'refused',     -- → intended              the vendor will not have it; a person mends, then again
  'uncertain',   -- → confirmed, unsent, refused   the vendor may have it: to be read back
  'unsent'       -- → intended              known not to have arrived; may be sent (again)
);

-- lines: some vouchers' lines to the vendor. post: the call that makes staged lines final.
create type kvitt.chunk_kind as enum ('lines', 'post');

create type kvitt.attempt_outcome as enum (
  'settled',     -- the period ended verified
  'uncertain',   -- waits for the vendor's settle time; starts again by itself
  'failed',      -- a person must mend something
  'postponed',   -- who was asked is away, or the budget is spent; starts again by itself
  'interrupted'  -- ended without a decision: lost lease, lost network, killed; starts again
);

create type kvitt.cold_start_kind as enum (
  'booted',      -- it answered, but had to boot first
  'boot_error',  -- it failed to boot
  'timed_out',   -- no answer in the time we gave it, or the platform gave up on it
  'out_of_memory' -- it was ended at its memory or CPU limit
);

-- ---------------------------------------------------------------------------------------------

create table kvitt.integrations (
  id text primary key check (id ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
  organisation text not null check (organisation <> ''),
  vendor text not null check (vendor ~ '^[a-z][a-z-]*$'),
  connection text not null check (connection <> ''),
  cron text not null check (cron ~ '^\S+( +\S+){4}$'),
  time_zone text not null,
  first_period timestamptz not null
    check (first_period >= '2020-01-01T00:00Z' and first_period < '2100-01-01T00:00Z'),
  book_currency text not null check (book_currency ~ '^[A-Z]{3}$'),
  mapping jsonb not null default '{}' check (jsonb_typeof(mapping) = 'object'),
  limits jsonb not null default '{}' check (jsonb_typeof(limits) = 'object'),
  timeouts jsonb not null default '{}' check (jsonb_typeof(timeouts) = 'object'),
  enabled boolean not null default true,
  ping text check (ping <> ''),
  expected_since timestamptz not null default now(),
  schedule_since timestamptz,
  last_voucher_number bigint not null default 0 check (last_voucher_number >= 0),
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
comment on table kvitt.integrations is
  'One organisation''s connection to one accounting company, as its administrators edit it.';
comment on column kvitt.integrations.connection is 'Name of the Prefect block that opens it.';
comment on column kvitt.integrations.first_period is
  'The first period is the first one due at or after this time.';
comment on column kvitt.integrations.ping is
  'Name of the Prefect block of type Secret that holds the address of an outside watcher.';
comment on column kvitt.integrations.expected_since is
  'Made or switched on then: what was due before that is not late before its time counts from here.';
comment on column kvitt.integrations.schedule_since is
  'When its schedule was changed, if ever: due times before that follow the schedule before.';
comment on column kvitt.integrations.last_voucher_number is
  'Counts the vouchers given to this integration''s books; only collect_page moves it.';

create table kvitt.periods (
  integration_id text not null references kvitt.integrations (id),
  due_at timestamptz not null check (due_at = date_trunc('minute', due_at)),
  opens_at timestamptz not null,
  key text not null unique,
  state kvitt.period_state not null default 'due',
  backfill boolean not null default false,
  -- The lease: who works on it, until when, and the number that makes later holders greater.
  fence bigint not null default 0 check (fence >= 0),
  holder uuid,
  leased_until timestamptz,
  not_before timestamptz,
  -- Who or what it waits for, if it is not for a missing reply; and how often in a row it has.
  waiting_for text check (waiting_for in ('vendor', 'function', 'budget')),
  postponed integer not null default 0 check (postponed >= 0),
  reason text,
  -- When the books first showed less than was sent, though the vendor's settle time was over.
  short_since timestamptz,
  -- The batch: what it took, frozen once frozen_at is set.
  record_count bigint not null default 0,
  taken jsonb not null default '{"vouchers": 0, "lines": 0, "original": {}, "booked": "0", "checksum": 0}',
  frozen_at timestamptz,
  receipt jsonb,
  settled_at timestamptz,
  -- What its vouchers go with, as the integration had it when it was claimed: see claim_period.
  mapping jsonb check (jsonb_typeof(mapping) = 'object'),
  time_zone text,
  -- Of one that is filled in: when its first call was intended.
  first_sent_at timestamptz,
  primary key (integration_id, due_at),
  unique (integration_id, opens_at), -- with opens_at = the previous due_at: no gap and no overlap
  check (opens_at < due_at),
  check ((holder is null) = (leased_until is null)),
  check (state <> 'uncertain' or not_before is not null),
  check (waiting_for is null or not_before is not null),
  check (state not in ('failed', 'skipped') or reason is not null),
  check ((state = 'verified') = (receipt is not null and settled_at is not null)),
  check (state not in ('collected', 'exporting', 'exported', 'verified') or frozen_at is not null)
);
comment on table kvitt.periods is
  'The calendar: each scheduled period of each integration, a row before it is due.';
comment on column kvitt.periods.backfill is
  'Written into the past at a person''s wish: never late, and later in turn than the schedule''s.';
comment on column kvitt.periods.taken is
  'What the batch holds, counted while it is collected: see kvitt.totals.';
comment on column kvitt.periods.mapping is
  'The mapping that its vouchers go with. Kept from the first call on that may be in the books.';
comment on column kvitt.periods.first_sent_at is
  'Of a period that is filled in: nothing of it is older in the books. Null: since it was due.';
comment on column kvitt.periods.key is 'integration@due time in UTC: the idempotency key.';

-- claim_period: the oldest unfinished period that is due. Settled ones, nearly all, stay outside.
create index periods_open on kvitt.periods (integration_id, due_at)
  where state not in ('verified', 'skipped');

create table kvitt.records (
  integration_id text not null references kvitt.integrations (id),
  id text not null check (id <> '' and length(id) <= 100),
  kind text not null check (kind <> ''),
  approved_at timestamptz not null,
  voucher_date date not null,
  currency text not null check (currency ~ '^[A-Z]{3}$'),
  text text not null default '',
  line_count integer not null check (line_count > 0),
  digest text not null,
  -- Taken by a period: all of these at once, and never changed again.
  period_due_at timestamptz,
  sequence bigint check (sequence > 0),
  voucher_number bigint check (voucher_number > 0),
  added_at timestamptz not null default now(),
  primary key (integration_id, id),
  foreign key (integration_id, period_due_at) references kvitt.periods (integration_id, due_at),
  unique (integration_id, period_due_at, sequence), -- read_batch walks it
  unique (integration_id, voucher_number),
  check (num_nulls(period_due_at, sequence, voucher_number) in (0, 3))
);
comment on table kvitt.records is 'Approved vouchers. The content never changes; taken only once.';
comment on column kvitt.records.digest is 'SHA-256 of the content: the same id must mean the same.';
comment on column kvitt.records.sequence is 'Place in its period''s batch, from 1, without gaps.';

-- collect_page: the next untaken records of an integration in the order of approval.
create index records_untaken on kvitt.records (integration_id, approved_at, id)
  where period_due_at is null;

create table kvitt.record_lines (
  integration_id text not null,
  record_id text not null,
  number integer not null check (number > 0),
  account text not null check (account <> ''),
  party text,
  amount numeric not null check (amount = round(amount, 4)),
  book_amount numeric not null check (book_amount <> 0 and book_amount = round(book_amount, 4)),
  tax text,
  dimensions jsonb not null default '{}' check (jsonb_typeof(dimensions) = 'object'),
  text text,
  approved_amount numeric,
  approved_book_amount numeric,
  primary key (integration_id, record_id, number),
  foreign key (integration_id, record_id) references kvitt.records (integration_id, id),
  check (num_nulls(approved_amount, approved_book_amount) in (0, 2)),
  -- What converting leaves over is 0 in the record's own currency, and a line that was added.
  check (amount <> 0 or coalesce(approved_book_amount, 1) = 0)
);
comment on table kvitt.record_lines is 'The lines of a voucher, which balance in both currencies.';
comment on column kvitt.record_lines.amount is 'In the record''s currency; debit is positive.';
comment on column kvitt.record_lines.book_amount is 'In the integration''s book currency.';
comment on column kvitt.record_lines.approved_amount is
  'What was approved, where the mapping''s rule rounded the line; 0 of a line that the rule added.';

create table kvitt.attempts (
  id uuid primary key,
  integration_id text not null,
  due_at timestamptz not null,
  fence bigint not null,
  trigger text not null check (
    -- catch-up: the run went on to the next period that was due
    trigger in ('schedule', 'person', 'watch', 'pg_cron', 'automation', 'catch-up')
  ),
  scheduled_at timestamptz,
  started_at timestamptz not null default now(),
  ended_at timestamptz,
  picked_up_at timestamptz,
  drift interval not null generated always as (started_at - due_at) stored,
  -- drift is queue and start together: until somebody took the run up, and from there to its body.
  queue_drift interval not null generated always as (
    greatest(least(coalesce(picked_up_at, started_at), started_at) - due_at, interval '0')) stored,
  start_drift interval not null generated always as (
    started_at - greatest(least(coalesce(picked_up_at, started_at), started_at), due_at)) stored,
  warm_up interval,
  flow_run text,
  worker text,
  outcome kvitt.attempt_outcome,
  detail text,
  requests jsonb not null default '{}' check (jsonb_typeof(requests) = 'object'),
  foreign key (integration_id, due_at) references kvitt.periods (integration_id, due_at),
  unique (integration_id, due_at, fence),
  check ((ended_at is null) = (outcome is null))
);
comment on table kvitt.attempts is 'One try at a period each, from claim to outcome.';
comment on column kvitt.attempts.scheduled_at is 'When the trigger itself was to fire.';
comment on column kvitt.attempts.started_at is
  'When its body claimed the period, by the clock of this database.';
comment on column kvitt.attempts.picked_up_at is 'When a worker took the run up; null: not known.';
comment on column kvitt.attempts.warm_up is 'How long its Edge Function was warmed up.';
comment on column kvitt.attempts.requests is 'Vendor requests spent, by purpose.';

create table kvitt.chunks (
  integration_id text not null,
  due_at timestamptz not null,
  number integer not null check (number > 0),
  kind kvitt.chunk_kind not null,
  first_sequence bigint,
  last_sequence bigint,
  state kvitt.chunk_state not null default 'intended',
  fence bigint not null,
  sends integer not null default 1 check (sends >= 0), -- 0: no call was begun yet
  settle interval not null check (settle >= interval '0'),
  intended_at timestamptz not null default now(),
  decided_at timestamptz,
  not_before timestamptz,
  absences integer not null default 0,
  totals jsonb not null default '{}',
  reference jsonb,
  detail text,
  primary key (integration_id, due_at, number),
  foreign key (integration_id, due_at) references kvitt.periods (integration_id, due_at),
  unique (integration_id, due_at, first_sequence), -- no voucher in two chunks
  check ((kind = 'lines') = (first_sequence is not null and last_sequence is not null)),
  check (first_sequence <= last_sequence),
  check (state <> 'uncertain' or not_before is not null)
);
comment on table kvitt.chunks is 'What goes to a vendor in one call: written before the call.';
comment on column kvitt.chunks.totals is 'What the call carried, counted from the call itself.';
comment on column kvitt.chunks.settle is 'How long after a call the vendor may still commit it.';

create unique index chunks_one_post on kvitt.chunks (integration_id, due_at) where kind = 'post';

create table kvitt.cold_starts (
  id uuid primary key,
  integration_id text not null,
  due_at timestamptz not null,
  attempt uuid references kvitt.attempts (id),
  function text not null,
  kind kvitt.cold_start_kind not null,
  seen_at timestamptz not null default now(),
  boot_ms numeric,
  reply_ms numeric not null,
  detail text,
  foreign key (integration_id, due_at) references kvitt.periods (integration_id, due_at)
);
comment on table kvitt.cold_starts is 'Each time an Edge Function had to boot, or failed to.';
comment on column kvitt.cold_starts.boot_ms is 'Milliseconds, as the function itself reports them.';

create index cold_starts_of_period on kvitt.cold_starts (integration_id, due_at);

create table kvitt.set_aside (
  integration_id text not null,
  due_at timestamptz not null,
  sequence bigint not null,
  record_id text not null,
  reason text not null check (reason <> ''),
  set_aside_at timestamptz not null default now(),
  totals jsonb not null,
  chunk integer,
  carried boolean not null default false,
  withdrawn_at timestamptz,
  mended_as text,
  primary key (integration_id, due_at, sequence),
  foreign key (integration_id, due_at) references kvitt.periods (integration_id, due_at),
  foreign key (integration_id, record_id) references kvitt.records (integration_id, id),
  foreign key (integration_id, mended_as) references kvitt.records (integration_id, id),
  foreign key (integration_id, due_at, chunk)
    references kvitt.chunks (integration_id, due_at, number)
);
comment on table kvitt.set_aside is
  'Vouchers that the accounting system does not take. The rest of their batch goes without them.';
comment on column kvitt.set_aside.chunk is
  'The call that had brought it, or a part of it: that is to be taken back before the rest is posted.';
comment on column kvitt.set_aside.carried is 'That call is confirmed, and its totals count this one.';
comment on column kvitt.set_aside.mended_as is 'The record that goes in its place, if a person said so.';

create table kvitt.decisions (
  id bigint generated always as identity primary key,
  integration_id text not null,
  due_at timestamptz not null,
  decision text not null check (decision in ('skip', 'mend', 'mend record')),
  record_id text,
  who text not null check (who <> ''),
  reason text not null check (reason <> ''),
  decided_at timestamptz not null default now(),
  foreign key (integration_id, due_at) references kvitt.periods (integration_id, due_at)
);
comment on table kvitt.decisions is 'What people decided about a period, who, and why. Kept.';

create table kvitt.task_results (
  key text primary key check (key <> ''),
  content text not null,
  written_at timestamptz not null default now()
);
comment on table kvitt.task_results is
  'Prefect''s task cache, so that each worker says Cached truthfully. Losing it loses nothing.';

-- ---------------------------------------------------------------------------------------------
-- Guards: what no function of ours does, and nobody else may.

create function kvitt.guard_period_state() returns trigger
language plpgsql set search_path = '' as $$
begin
  if (old.state, new.state) in (
    ('due', 'collecting'), ('due', 'skipped'),
    ('collecting', 'collected'), ('collecting', 'failed'), ('collecting', 'skipped'),
    ('collected', 'exporting'), ('collected', 'verified'), ('collected', 'failed'),
    ('exporting', 'exported'), ('exporting', 'uncertain'), ('exporting', 'failed'),
    ('exported', 'verified'), ('exported', 'uncertain'), ('exported', 'failed'),
    ('uncertain', 'exporting'), ('uncertain', 'failed'),
    ('failed', 'collecting'), ('failed', 'exporting'), ('failed', 'skipped')
  ) then
    return new;
  end if;
  raise exception 'period %: % cannot become %', old.key, old.state, new.state
    using errcode = 'KV005';
end $$;

create trigger guard_state before update of state on kvitt.periods
  for each row when (old.state is distinct from new.state)
  execute function kvitt.guard_period_state();

create function kvitt.guard_chunk_state() returns trigger
language plpgsql set search_path = '' as $$
begin
  if (old.state, new.state) in (
    ('intended', 'confirmed'), ('intended', 'refused'), ('intended', 'unsent'),
    ('intended', 'uncertain'),
    ('uncertain', 'confirmed'), ('uncertain', 'unsent'), ('uncertain', 'refused'),
    ('refused', 'intended'), ('unsent', 'intended')
  ) then
    return new;
  end if;
  raise exception 'chunk % of %@%: % cannot become %',
    old.number, old.integration_id, old.due_at, old.state, new.state using errcode = 'KV005';
end $$;

create trigger guard_state before update of state on kvitt.chunks
  for each row when (old.state is distinct from new.state)
  execute function kvitt.guard_chunk_state();

create function kvitt.guard_record() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'UPDATE' and old.period_due_at is null
     and (to_jsonb(new) - array['period_due_at', 'sequence', 'voucher_number'])
       = (to_jsonb(old) - array['period_due_at', 'sequence', 'voucher_number']) then
    return new;
  end if;
  raise exception 'record % of %: a record does not change; a correction is a new record that '
    'reverses and replaces it', old.id, old.integration_id using errcode = 'KV005';
end $$;

create trigger guard_content before update or delete on kvitt.records
  for each row execute function kvitt.guard_record();

create function kvitt.guard_record_line() returns trigger
language plpgsql set search_path = '' as $$
begin
  raise exception 'line % of record % of %: lines do not change',
    old.number, old.record_id, old.integration_id using errcode = 'KV005';
end $$;

create trigger guard_content before update or delete on kvitt.record_lines
  for each row execute function kvitt.guard_record_line();

-- ---------------------------------------------------------------------------------------------

alter table kvitt.integrations enable row level security;
alter table kvitt.periods enable row level security;
alter table kvitt.records enable row level security;
alter table kvitt.record_lines enable row level security;
alter table kvitt.attempts enable row level security;
alter table kvitt.chunks enable row level security;
alter table kvitt.cold_starts enable row level security;
alter table kvitt.set_aside enable row level security;
alter table kvitt.decisions enable row level security;
alter table kvitt.task_results enable row level security;

grant select on all tables in schema kvitt to service_role;
revoke execute on all functions in schema kvitt from public;
