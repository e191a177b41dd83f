-- On time, and never missed unseen: incidents that alert once, heartbeats of the watchers, and what
-- a watcher asks. See docs/on-time.md.

-- What may be wrong. The subject says with what: alerts are told once per kind and subject.
create type kvitt.incident_kind as enum (
  'late',        -- nobody has started a period by the minute that its integration allows
  'missed',      -- nor by the time at which the next one came due
  'uncertain',   -- a reply of the vendor is missing
  'failed',      -- a period waits for a person
  'stuck',       -- a period was begun, is not finished, and nobody works on it
  'set-aside',   -- a period is settled without some vouchers, which nobody has mended yet
  'silent',      -- another watcher gives no sign of life
  'unreadable',  -- an integration's row makes no sense, so that nobody works on it
  'unaligned'    -- Prefect's deployments could not be brought into line with the integrations
);

-- An incident is open (ended_at is null), then over; told or not. It never opens again: what comes
-- back is a new one.
create table kvitt.incidents (
  id bigint generated always as identity primary key,
  kind kvitt.incident_kind not null,
  subject text not null check (subject <> ''),
  integration_id text references kvitt.integrations (id),
  due_at timestamptz,
  periods integer not null default 0,
  since timestamptz not null,
  what text not null check (what <> ''),
  opened_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  told_at timestamptz,
  ended_at timestamptz,
  end_told_at timestamptz
);
comment on table kvitt.incidents is 'What a person must know: each alerts once, and ends once.';
comment on column kvitt.incidents.due_at is 'The period that it is about; the oldest of several.';
comment on column kvitt.incidents.since is 'When the trouble began, as far as the ledger knows.';
comment on column kvitt.incidents.what is 'What happened, to whom, and what to do.';

-- note_incidents: one open incident per kind and subject.
create unique index incidents_open on kvitt.incidents (kind, subject) where ended_at is null;
-- untold_incidents: few at any time.
create index incidents_untold on kvitt.incidents (id)
  where told_at is null or (ended_at is not null and end_told_at is null);

alter table kvitt.incidents enable row level security;
grant select on kvitt.incidents to service_role;

-- ---------------------------------------------------------------------------------------------
-- Incidents

-- Periods of the schedule's own that nobody has ever started and that should have been, oldest first.
-- What came due while an integration was switched off counts from when it was switched on.
create function kvitt.unstarted_periods(p_integration text)
returns table (integration_id text, key text, due_at timestamptz, missed boolean)
language sql stable set search_path = '' as $$
  select p.integration_id, p.key, p.due_at, exists (
           select from kvitt.periods n where n.integration_id = p.integration_id
              and n.opens_at = p.due_at and greatest(n.due_at, i.expected_since) <= now())
    from kvitt.periods p join kvitt.integrations i on i.id = p.integration_id
   where (p_integration is null or p.integration_id = p_integration) and i.enabled
     and p.state = 'due' and p.fence = 0 and not p.backfill
     and greatest(p.due_at, i.expected_since) + kvitt.allowed_lateness(i) <= now()
$$;

-- What is wrong now, of one integration or of all. All but what only a watcher in Prefect can see.
create function kvitt.troubles(p_integration text)
returns table (kind kvitt.incident_kind, subject text, integration_id text, due_at timestamptz,
               periods bigint, since timestamptz, what text)
language sql stable set search_path = '' as $$
  with unstarted as (
    select u.integration_id, u.missed, min(u.due_at) as due_at, count(*) as periods,
           (array_agg(u.key order by u.due_at))[1] as key
      from kvitt.unstarted_periods(p_integration) u group by u.integration_id, u.missed
  ), stopped as (
    select p.*, case
             when p.state in ('uncertain', 'failed') then p.state::text
             else 'stuck' end as trouble, a.begun_at, a.ended_at, a.detail
      from kvitt.periods p, lateral (
        select min(started_at) as begun_at, max(ended_at) as ended_at,
               (array_agg(detail order by fence desc))[1] as detail
          from kvitt.attempts
         where (integration_id, due_at) = (p.integration_id, p.due_at)) a
     where (p_integration is null or p.integration_id = p_integration)
       and p.state not in ('due', 'verified', 'skipped')
       and (p.state in ('uncertain', 'failed')
            or p.leased_until <= now() - interval '5 minutes'
            or p.waiting_for = 'budget' and p.not_before > now()
            or p.leased_until is null and a.begun_at <= now() - interval '30 minutes')
  )
  select case when u.missed then 'missed' else 'late' end::kvitt.incident_kind,
         u.integration_id, u.integration_id, u.due_at, u.periods, u.due_at,
         format('%s: %s was due at %s UTC and nobody has started it%s. Nothing is lost: what was '
           'approved waits, and watch starts a run every quarter of an hour until one begins. Look '
           'whether a worker is running (prefect worker start --pool …), and whether Prefect shows '
           'a run of sync/%s that is Late, Pending or failed', i.organisation, u.key,
           to_char(u.due_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
           case when u.missed then format(', nor had anybody when the next one came due (%s periods '
             'so far)', u.periods) else '' end, u.integration_id)
    from unstarted u join kvitt.integrations i on i.id = u.integration_id
  union all
  select s.trouble::kvitt.incident_kind, s.key, s.integration_id, s.due_at, 1,
         coalesce(s.leased_until, s.ended_at, s.begun_at, s.due_at),
         format(case s.trouble
           when 'uncertain' then '%1$s: period %2$s waits for the accounting system, which did not '
             'say what became of a call: %3$s. Nothing need be done: it is read back after %4$s UTC, '
             'and goes on by itself. If that happens often, look at the accounting system'
           when 'failed' then '%1$s: period %2$s has failed and waits for a person: %3$s. When that '
             'is mended, say so: kvitt mend %5$s --reason "…"'
           else case when s.waiting_for is null
             then '%1$s: period %2$s was begun and is not finished, and nobody works on it. The last '
               'attempt ended so: %6$s. The next run goes on from there, and watch starts one. Look '
               'whether a worker is running, and at the latest run of sync/%7$s'
             when s.waiting_for = 'budget' then '%1$s: period %2$s waits for its budget: %3$s. It goes '
               'on by itself after %4$s UTC, or when more is allowed; kvitt budget shows what is spent'
             else '%1$s: period %2$s was begun and is not finished, since it waits: %3$s. It is tried '
               'again after %4$s UTC; at once: prefect deployment run sync/%7$s' end end,
           i.organisation, s.key, rtrim(s.reason, '. '),
           to_char(s.not_before at time zone 'UTC', 'YYYY-MM-DD HH24:MI'),
           replace(s.key, '@', ' '), coalesce(rtrim(s.detail, '. '), 'without a word'),
           s.integration_id)
    from stopped s join kvitt.integrations i on i.id = s.integration_id and i.enabled
  union all
  select 'set-aside', p.key, p.integration_id, p.due_at, 1, a.since,
         format('%s: period %s was settled without %s, which the accounting system does not take. '
           'The first: record %s, %s. kvitt set-aside %s shows all. When one is mended, let it go '
           'again: kvitt mend %s --record RECORD --reason "…"', i.organisation, p.key,
           case when a.vouchers = 1 then 'a voucher' else format('%s vouchers', a.vouchers) end,
           (a.first).record_id, rtrim((a.first).reason, '. '), p.integration_id, p.integration_id)
    from (select s.integration_id, s.due_at, count(*) as vouchers, min(s.set_aside_at) as since,
                 (array_agg(s order by s.sequence))[1] as first
            from kvitt.set_aside s
           where s.mended_as is null
             and (p_integration is null or s.integration_id = p_integration)
           group by s.integration_id, s.due_at) a
    join kvitt.periods p on (p.integration_id, p.due_at) = (a.integration_id, a.due_at)
                        and p.state = 'verified'
    join kvitt.integrations i on i.id = p.integration_id and i.enabled
  union all
  select 'silent', h.who, null, null, 0, h.beat_at,
         format('the watcher %s has given no sign of life since %s UTC. The other one still watches, '
           'but nobody watches it. Start %1$s again; if it was taken away for good, say so: '
           'kvitt watchers --forget %1$s', h.who,
           to_char(h.beat_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI'))
    from kvitt.heartbeats h
   where p_integration is null and h.beat_at <= now() - interval '10 minutes'
$$;

-- Compares what is wrong now with the open incidents: opens, updates and ends them. Of one
-- integration or of all; only what `troubles` can see.
create function kvitt.note_incidents(p_integration text default null) returns void
language plpgsql security definer set search_path = '' as $$
begin
  lock table kvitt.incidents in share row exclusive mode; -- two watchers at once: one after the other
  insert into kvitt.incidents as i (kind, subject, integration_id, due_at, periods, since, what)
  select * from kvitt.troubles(p_integration)
  on conflict (kind, subject) where ended_at is null do update set
    due_at = excluded.due_at, periods = excluded.periods, what = excluded.what, seen_at = now();
  update kvitt.incidents i set ended_at = now()
   where i.ended_at is null and i.seen_at <> now() and i.kind not in ('unreadable', 'unaligned')
     and (p_integration is null or i.integration_id = p_integration);
end $$;

-- What a watcher outside of the database has found, of one kind: {subject: what}. Those of this kind
-- that are not among them are over.
create function kvitt.note_findings(p_kind kvitt.incident_kind, p_found jsonb) returns void
language plpgsql security definer set search_path = '' as $$
begin
  lock table kvitt.incidents in share row exclusive mode;
  insert into kvitt.incidents as i (kind, subject, integration_id, since, what)
  select p_kind, f.key, (select id from kvitt.integrations where id = f.key), now(), f.value
    from jsonb_each_text(p_found) f
  on conflict (kind, subject) where ended_at is null do update set
    what = excluded.what, seen_at = now();
  update kvitt.incidents set ended_at = now()
   where ended_at is null and kind = p_kind and not p_found ? subject;
end $$;

-- What nobody has been told yet, oldest first; of an incident that was told, its end is told too.
create function kvitt.untold_incidents(p_integration text default null) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(i) order by i.id), '[]') from kvitt.incidents i
   where (told_at is null or (ended_at is not null and end_told_at is null))
     and (p_integration is null or integration_id = p_integration)
$$;

-- Somebody was told, so that nobody is told again.
create function kvitt.incident_told(p_id bigint) returns void
language sql security definer set search_path = '' as $$
  update kvitt.incidents set
    told_at = coalesce(told_at, now()),
    end_told_at = case when ended_at is not null then coalesce(end_told_at, now()) end
  where id = p_id
$$;

-- A watcher was taken away for good: its silence is no incident any more.
create function kvitt.forget_watcher(p_who text) returns boolean
language plpgsql security definer set search_path = '' as $$
begin
  delete from kvitt.heartbeats where who = p_who;
  return found;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Runs and attempts

-- The Prefect runs that the ledger has heard of within p_grace: they hold a lease, or held one.
create function kvitt.runs_at_work(p_grace interval) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(distinct a.flow_run), '[]')
    from kvitt.attempts a left join kvitt.periods p on p.holder = a.id
   where a.flow_run is not null
     and greatest(a.started_at, a.ended_at, p.leased_until) > now() - p_grace
$$;

-- attempts are asked for by time.
create index attempts_started on kvitt.attempts (started_at);

-- How long an attempt warmed its function up; the first word stays.
create function kvitt.record_warm_up(p_attempt uuid, p_length interval) returns void
language sql security definer set search_path = '' as $$
  update kvitt.attempts set warm_up = coalesce(warm_up, p_length) where id = p_attempt
$$;

-- ---------------------------------------------------------------------------------------------
-- The calendar, backwards

-- Writes the calendar on into the past: p_due are due times in order, the last of them the moment at
-- which the calendar begins now, so that no gap comes about; the first period opens at p_opens_at.
-- Each is worked on p_pace after the one before it, and after whatever the schedule has due. p_before
-- says how many of the same wish come before these. What is there stays: twice is once.
create function kvitt.extend_back(
  p_integration text, p_opens_at timestamptz, p_due timestamptz[], p_pace interval, p_before integer
) returns integer
language plpgsql security definer set search_path = '' as $$
declare
  first kvitt.periods;
  joins timestamptz;
  written integer;
begin
  perform from kvitt.integrations where id = p_integration for update;
  if not found then
    raise exception 'there is no integration %', p_integration using errcode = 'KV004';
  end if;
  select * into first from kvitt.periods where integration_id = p_integration
   order by due_at limit 1;
  if not found then
    raise exception '%: its calendar is not written yet', p_integration using errcode = 'KV004';
  end if;
  select max(due) into joins from unnest(p_due) due where due < first.due_at;
  if joins is null then
    return 0;
  elsif joins <> first.opens_at then
    raise exception '%: its calendar begins at %, and a period that ends at % would leave a gap',
      p_integration, first.opens_at, joins using errcode = 'KV003';
  elsif (select min(due) from unnest(p_due) due) < '2020-01-01T00:00Z' then
    raise exception '%: periods have names from 2020 on', p_integration using errcode = 'KV003';
  end if;
  insert into kvitt.periods (integration_id, due_at, opens_at, key, backfill, not_before)
  select p_integration, due, coalesce(lag(due) over (order by due), p_opens_at),
         kvitt.period_key(p_integration, due), true,
         now() + p_pace * (p_before + row_number() over (order by due) - 1)
    from unnest(p_due) as due
   where due < first.due_at;
  get diagnostics written = row_count;
  return written;
end $$;

-- Where the calendar of an integration begins: its first period, or null.
create function kvitt.first_period_of(p_integration text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select to_jsonb(p) from kvitt.periods p where integration_id = p_integration
   order by due_at limit 1
$$;

-- The periods of an integration in a stretch of time, counted by where they stand; `next_at` is when
-- the pace lets the next one begin.
create function kvitt.progress(p_integration text, p_from timestamptz, p_to timestamptz)
returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'periods', count(*),
    'settled', count(*) filter (where state in ('verified', 'skipped')),
    'failed', count(*) filter (where state = 'failed'),
    'vouchers', coalesce(sum(record_count) filter (where state = 'verified'), 0),
    'next_at', min(not_before) filter (where state = 'due' and not_before > now()))
  from kvitt.periods
 where integration_id = p_integration and due_at between p_from and p_to and due_at <= now()
$$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.note_incidents(text),
  kvitt.note_findings(kvitt.incident_kind, jsonb),
  kvitt.untold_incidents(text),
  kvitt.incident_told(bigint),
  kvitt.forget_watcher(text),
  kvitt.runs_at_work(interval),
  kvitt.record_warm_up(uuid, interval),
  kvitt.extend_back(text, timestamptz, timestamptz[], interval, integer),
  kvitt.first_period_of(text),
  kvitt.progress(text, timestamptz, timestamptz)
to service_role;
