-- Edge Functions: what each cold start cost, what is learned of a function, and cold starts that pile
-- up. See docs/edge-function.md.

-- ---------------------------------------------------------------------------------------------
-- What a cold start cost

alter table kvitt.cold_starts
  add column consequence text check (consequence in (
    'warm-up',      -- the warm-up took longer, by cost_ms
    'slow page',    -- a page waited for the boot
    'called again', -- a page was not taken, and was asked for again
    'page halved',  -- the same, with half of it
    'period waits'  -- it failed too often in a row: the period waits for the function
  )),
  add column cost_ms numeric,
  add column page integer check (page > 0);
comment on column kvitt.cold_starts.consequence is 'What it meant for the period; null: not known.';
comment on column kvitt.cold_starts.cost_ms is
  'How long it held the period up: until it had answered, and the pause that followed.';
comment on column kvitt.cold_starts.page is 'How many records were asked for, if it was a page.';

-- kvitt.function_habit: the cold starts of an attempt.
create index cold_starts_of_attempt on kvitt.cold_starts (attempt);
-- kvitt.function_habit: the last attempts that warmed it up.
create index attempts_warmed_up on kvitt.attempts (started_at) where warm_up is not null;
-- kvitt.piled_up_cold_starts: those of the last hour.
create index cold_starts_seen on kvitt.cold_starts (seen_at);

-- The one with less to say is called by nobody any more; its callers may still call this one.
drop function kvitt.record_cold_start(
  uuid, text, timestamptz, uuid, text, kvitt.cold_start_kind, numeric, numeric, text);

create function kvitt.record_cold_start(
  p_id uuid, p_integration text, p_due timestamptz, p_attempt uuid, p_function text,
  p_kind kvitt.cold_start_kind, p_boot_ms numeric, p_reply_ms numeric, p_detail text,
  p_consequence text default null, p_cost_ms numeric default null, p_page integer default null
) returns void
language sql security definer set search_path = '' as $$
  insert into kvitt.cold_starts
    (id, integration_id, due_at, attempt, function, kind, boot_ms, reply_ms, detail, consequence,
     cost_ms, page)
  values (p_id, p_integration, p_due, p_attempt, p_function, p_kind, p_boot_ms, p_reply_ms,
          p_detail, p_consequence, p_cost_ms, p_page)
  on conflict (id) do nothing
$$;

-- As it was, and of each cold start what it cost.
create or replace function kvitt.receipt(
  p_period kvitt.periods, p_sent jsonb, p_read_back jsonb, p_settled_at timestamptz
) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'key', p_period.key,
    'integration', p_period.integration_id,
    'organisation', i.organisation,
    'vendor', i.vendor,
    'connection', i.connection,
    'book_currency', i.book_currency,
    'time_zone', i.time_zone,
    'opens_at', p_period.opens_at,
    'due_at', p_period.due_at,
    'settled_at', p_settled_at,
    'taken', p_period.taken, 'sent', p_sent, 'read_back', p_read_back,
    'set_aside', (select coalesce(jsonb_agg(jsonb_build_object(
                      'record', a.record_id, 'voucher_number', r.voucher_number,
                      'booked', a.totals ->> 'booked', 'reason', a.reason)
                      order by a.sequence), '[]')
                    from kvitt.set_aside a join kvitt.records r
                      on (r.integration_id, r.id) = (a.integration_id, a.record_id)
                   where (a.integration_id, a.due_at)
                       = (p_period.integration_id, p_period.due_at)),
    'decisions', (select coalesce(jsonb_agg(jsonb_build_object(
                      'decision', decision, 'who', who, 'reason', reason, 'at', decided_at)
                      order by id), '[]')
                    from kvitt.decisions d where (d.integration_id, d.due_at)
                       = (p_period.integration_id, p_period.due_at)),
    'drift_seconds', (select round(extract(epoch from min(drift))::numeric, 3)
                        from kvitt.attempts a where (a.integration_id, a.due_at)
                           = (p_period.integration_id, p_period.due_at)),
    'drift', (select jsonb_build_object(
                  'queue_seconds', kvitt.seconds(queue_drift),
                  'start_seconds', kvitt.seconds(start_drift),
                  'warm_up_seconds', kvitt.seconds(warm_up))
                from kvitt.attempts a where (a.integration_id, a.due_at)
                   = (p_period.integration_id, p_period.due_at) order by fence limit 1),
    'cold_starts', (select coalesce(jsonb_agg(jsonb_build_object(
                        'kind', kind, 'boot_ms', boot_ms, 'reply_ms', reply_ms,
                        'consequence', consequence, 'cost_ms', cost_ms, 'page', page)
                        order by seen_at), '[]')
                      from kvitt.cold_starts c where (c.integration_id, c.due_at)
                         = (p_period.integration_id, p_period.due_at)),
    'attempts', (select jsonb_agg(jsonb_build_object(
                     'trigger', trigger, 'started_at', started_at,
                     'outcome', coalesce(outcome, 'settled'), 'detail', detail)
                     order by fence)
                   from kvitt.attempts a where (a.integration_id, a.due_at)
                      = (p_period.integration_id, p_period.due_at)),
    'requests', (select coalesce(jsonb_object_agg(purpose, spent), '{}') from (
                   select e.key as purpose, sum(e.value::bigint) as spent
                     from kvitt.attempts a, jsonb_each_text(a.requests) e
                    where (a.integration_id, a.due_at)
                        = (p_period.integration_id, p_period.due_at)
                    group by e.key) by_purpose),
    'resent', (select coalesce(jsonb_agg(jsonb_build_object(
                   'chunk', number, 'sends', sends, 'detail', detail) order by number), '[]')
                 from kvitt.chunks c where (c.integration_id, c.due_at)
                    = (p_period.integration_id, p_period.due_at)
                  and (sends > 1 or absences > 0 or not_before is not null)))
  from kvitt.integrations i where i.id = p_period.integration_id
$$;

-- ---------------------------------------------------------------------------------------------
-- What is learned of a function

-- What the last 20 attempts that warmed it up saw of a function, whichever integration they were of:
-- {boots: the most that one attempt met, boot_seconds: the longest that a boot took to answer}.
create function kvitt.function_habit(p_function text) returns jsonb
language sql stable security definer set search_path = '' as $$
  with met as (
    select count(c.id) as boots, max(c.reply_ms) filter (where c.page is null) as reply_ms
      from (select id from kvitt.attempts where warm_up is not null
             order by started_at desc limit 20) a
      join kvitt.cold_starts c
        on c.attempt = a.id and c.function = p_function and c.kind = 'booted'
     group by a.id
  )
  select jsonb_build_object('boots', coalesce(max(boots), 0),
                            'boot_seconds', coalesce(max(reply_ms), 0) / 1000) from met
$$;

create table kvitt.pages (
  integration_id text not null references kvitt.integrations (id),
  function text not null,
  records integer not null check (records > 0),
  good integer not null default 0 check (good >= 0),
  too_much integer check (too_much > 0),
  memory_mb integer not null check (memory_mb > 0),
  learned_at timestamptz not null default now(),
  primary key (integration_id, function)
);
comment on table kvitt.pages is
  'How many records a function takes at once, where that is less than its integration''s limit.';
comment on column kvitt.pages.good is 'So many full pages in a row went well with that many.';
comment on column kvitt.pages.too_much is 'So many were too much for its memory, the last time.';
comment on column kvitt.pages.memory_mb is
  'What it was allowed then: where that is another number now, nothing is known.';

alter table kvitt.pages enable row level security;
grant select on kvitt.pages to service_role;

-- What was learned, or null.
create function kvitt.page_of(p_integration text, p_function text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select to_jsonb(p) from kvitt.pages p
   where integration_id = p_integration and function = p_function
$$;

-- Remembered for the next period as soon as it is known: an attempt may end at any time.
create function kvitt.remember_page(
  p_integration text, p_due timestamptz, p_fence bigint, p_function text, p_records integer,
  p_good integer, p_too_much integer, p_memory_mb integer
) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform kvitt.hold(p_integration, p_due, p_fence);
  insert into kvitt.pages as p (integration_id, function, records, good, too_much, memory_mb)
  values (p_integration, p_function, p_records, p_good, p_too_much, p_memory_mb)
  on conflict (integration_id, function) do update set
    records = excluded.records, good = excluded.good, too_much = excluded.too_much,
    memory_mb = excluded.memory_mb, learned_at = now();
end $$;

-- ---------------------------------------------------------------------------------------------
-- Cold starts that pile up

alter type kvitt.incident_kind add value 'cold-starts'; -- a function's failed starts pile up

-- Functions that failed to start five times within an hour, or whose cold starts held periods up for
-- two minutes. A boot now and then is how Edge Functions are, and no trouble. Once open, it lasts
-- until an hour has passed without a failed start, and with half the cost, so that it is not told
-- over and over.
create function kvitt.piled_up_cold_starts()
returns table (function text, since timestamptz, what text)
language sql stable set search_path = '' as $$
  select c.function, min(c.seen_at),
         format('the Edge Function %s starts badly: within an hour %s, which held up the exports of '
           '%s for %s s. Nothing is lost: a period goes on as soon as the function answers. Look at '
           'its logs in Supabase (Edge Functions, %1$s). boot_error: it was deployed with an error, or '
           'imports what it cannot fetch. out_of_memory: it does too much for one page, which is '
           'halved until it fits. timed_out: it, or the database behind it, is too slow',
           c.function,
           concat_ws(', ',
             nullif(count(*) filter (where c.kind = 'boot_error'), 0) || ' x boot_error',
             nullif(count(*) filter (where c.kind = 'timed_out'), 0) || ' x timed_out',
             nullif(count(*) filter (where c.kind = 'out_of_memory'), 0) || ' x out_of_memory',
             nullif(count(*) filter (where c.kind = 'booted'), 0) || ' x booted'),
           case when count(distinct i.id) <= 3 then string_agg(distinct i.organisation, ', ')
                else count(distinct i.id) || ' integrations' end,
           round(sum(coalesce(c.cost_ms, c.reply_ms)) / 1000))
    from kvitt.cold_starts c
    join kvitt.integrations i on i.id = c.integration_id
    left join kvitt.incidents o
      on o.kind::text = 'cold-starts' and o.subject = c.function and o.ended_at is null
   where c.seen_at > now() - interval '1 hour'
   group by c.function, o.id
  having count(*) filter (where c.kind <> 'booted') >= case when o.id is null then 5 else 1 end
      or sum(coalesce(c.cost_ms, c.reply_ms)) >= case when o.id is null then 120000 else 60000 end
$$;

-- What is wrong now: what it was, and cold starts that pile up.
alter function kvitt.troubles(text) rename to troubles_of_periods;
create function kvitt.troubles(p_integration text)
returns table (kind kvitt.incident_kind, subject text, integration_id text, due_at timestamptz,
               periods bigint, since timestamptz, what text)
language plpgsql stable set search_path = '' as $$
begin
  return query select * from kvitt.troubles_of_periods(p_integration);
  if p_integration is null then
    return query select 'cold-starts'::kvitt.incident_kind, p.function, null::text,
                        null::timestamptz, 0::bigint, p.since, p.what
                   from kvitt.piled_up_cold_starts() p;
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Telling

-- What nobody has been told yet, oldest first; of an incident that was told, its end is told too.
-- With the Prefect run and the deployment that it is about, where there are any, for a link. An
-- uncertain period is told once it has been so for an hour: until then nobody can do anything but
-- wait for the vendor's settle time, and mostly it is over by then.
create or replace function kvitt.untold_incidents(p_integration text default null) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(i) || jsonb_build_object(
           'flow_run', (select a.flow_run from kvitt.attempts a
                         where (a.integration_id, a.due_at) = (i.integration_id, i.due_at)
                         order by a.fence desc limit 1),
           'deployment', (select d.deployment from kvitt.deployments d
                           where d.integration_id = i.integration_id))
           order by i.id), '[]')
    from kvitt.incidents i
   where (i.told_at is null or (i.ended_at is not null and i.end_told_at is null))
     and (p_integration is null or i.integration_id = p_integration)
     and (i.kind <> 'uncertain' or i.told_at is not null
          or (i.ended_at is null and i.since <= now() - interval '1 hour'))
$$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.record_cold_start(uuid, text, timestamptz, uuid, text, kvitt.cold_start_kind, numeric,
                          numeric, text, text, numeric, integer),
  kvitt.function_habit(text),
  kvitt.page_of(text, text),
  kvitt.remember_page(text, timestamptz, bigint, text, integer, integer, integer, integer)
to service_role;
