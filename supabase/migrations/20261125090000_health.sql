-- Health: how each connection is, by probes or by what exports meet, and who is probed at all. See
-- docs/health.md.
--
-- A connection is a vendor and a connection's name, as in the budget. How long to wait is computed by
-- whoever asks (kvitt/domain/health.py); what a connection is, only here.
--
-- Locks are taken in one order: connections (by vendor and name), then budgets, then periods.

alter type kvitt.incident_kind add value 'unhealthy'; -- a connection does not do what exports need

create type kvitt.connection_mode as enum (
  'active',   -- probed each quarter of an hour
  'passive'   -- not probed: judged by what exports meet
);

create type kvitt.connection_state as enum (
  'unknown',    -- nothing was heard of it yet
  'healthy',    -- it answered when it was asked the last time
  'degraded',   -- it failed once or twice in a row, or a limit turned us away
  'unhealthy'   -- it failed three times in a row; in passive mode, once. Only an answer ends it
);

create table kvitt.connections (
  vendor text not null,
  connection text not null,
  mode kvitt.connection_mode not null,
  mode_by text not null check (mode_by <> ''),
  mode_reason text not null check (mode_reason <> ''),
  mode_since timestamptz not null default now(),
  by_default boolean not null,
  trial_at timestamptz,
  cool_downs integer not null default 0 check (cool_downs >= 0),
  state kvitt.connection_state not null default 'unknown',
  state_since timestamptz not null default now(),
  why text,
  failures integer not null default 0 check (failures >= 0),
  next_probe_at timestamptz not null default now(),
  unasked text,
  claim uuid,
  trial boolean not null default false,
  reservation uuid,
  last_probe_at timestamptz,
  last_traffic_at timestamptz,
  last_note uuid,
  primary key (vendor, connection),
  check (trial_at is null or mode = 'passive')
);
comment on table kvitt.connections is 'How each connection is, and whether it is probed.';
comment on column kvitt.connections.by_default is
  'Nobody has said its mode: it follows from what a month of probes would cost.';
comment on column kvitt.connections.trial_at is
  'When one probe may try whether a limit is over; null where only a person ends the passive mode.';
comment on column kvitt.connections.cool_downs is 'How many of them in a row: each is twice as long.';
comment on column kvitt.connections.why is 'What its state comes from; null for an answer.';
comment on column kvitt.connections.failures is 'In a row, of probes and of exports.';
comment on column kvitt.connections.unasked is 'Why the last probe was not made, if it was not.';
comment on column kvitt.connections.claim is 'Whose probe of it is under way. `trial`: a half-open one.';
comment on column kvitt.connections.last_note is 'The last word of real traffic: said twice is once.';

create table kvitt.vendor_modes (
  vendor text primary key,
  mode kvitt.connection_mode not null,
  mode_by text not null check (mode_by <> ''),
  mode_reason text not null check (mode_reason <> ''),
  mode_since timestamptz not null default now()
);
comment on table kvitt.vendor_modes is
  'The last word about all connections of a vendor, for those that come later.';

create table kvitt.connection_changes (
  id bigint generated always as identity primary key,
  vendor text not null,
  connection text,
  what text not null check (what in ('mode', 'state')),
  was text,
  became text not null,
  reason text,
  who text not null check (who <> ''),
  changed_at timestamptz not null default now(),
  told_at timestamptz
);
comment on table kvitt.connection_changes is 'Each change of a mode or a state, who, and why. Kept.';
comment on column kvitt.connection_changes.connection is 'Null: all of the vendor''s.';
comment on column kvitt.connection_changes.told_at is
  'When Prefect got an event of it. Of states it gets none: they come as incidents.';

-- untold_modes: few at any time.
create index connection_changes_untold on kvitt.connection_changes (id)
  where what = 'mode' and told_at is null;
-- read_connections, budget_limits: the integrations of a connection.
create index integrations_connection on kvitt.integrations (vendor, connection);

alter table kvitt.connections enable row level security;
alter table kvitt.vendor_modes enable row level security;
alter table kvitt.connection_changes enable row level security;
grant select on kvitt.connections, kvitt.vendor_modes, kvitt.connection_changes to service_role;

-- Since when, and the history: whoever changes a connection.
create function kvitt.date_change() returns trigger
language plpgsql set search_path = '' as $$
begin
  if new.mode <> old.mode then
    new.mode_since := now();
  end if;
  if new.state <> old.state then
    new.state_since := now();
  end if;
  return new;
end $$;

create trigger date_change before update on kvitt.connections
  for each row execute function kvitt.date_change();

create function kvitt.keep_change() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'INSERT' then
    insert into kvitt.connection_changes (vendor, connection, what, became, reason, who, told_at)
    values (new.vendor, new.connection, 'mode', new.mode, new.mode_reason, new.mode_by, now());
    return null;
  end if;
  if (new.mode, new.mode_by, new.mode_reason) <> (old.mode, old.mode_by, old.mode_reason) then
    insert into kvitt.connection_changes (vendor, connection, what, was, became, reason, who)
    values (new.vendor, new.connection, 'mode', old.mode, new.mode, new.mode_reason, new.mode_by);
  end if;
  if new.state <> old.state then
    insert into kvitt.connection_changes (vendor, connection, what, was, became, reason, who)
    values (new.vendor, new.connection, 'state', old.state, new.state, new.why, 'kvitt');
  end if;
  return null;
end $$;

create trigger keep_change after insert or update on kvitt.connections
  for each row execute function kvitt.keep_change();

-- ---------------------------------------------------------------------------------------------
-- Which there are

-- As before, and a number below 0 or beyond any that makes sense counts as none as well: one row that
-- an administrator mistyped keeps nobody else from being looked at.
create or replace function kvitt.number_at(p_limits jsonb, p_name text) returns numeric
language sql immutable set search_path = '' as $$
  select n from (
    select case when jsonb_typeof(p_limits -> 'budget' -> p_name) = 'number'
                then (p_limits -> 'budget' ->> p_name)::numeric end as n) said
   where n between 0 and 1e15
$$;

-- The connections that enabled integrations name, with how each stands, and what its probes may
-- spend: of `requests` a month (null: no limit) the `probe_share`, which is less than what was said
-- where probes would reach the warning (kvitt.budget_room). p_allowances says what vendors include. Mode and state are null where nobody has enrolled it yet.
create function kvitt.read_connections(
  p_allowances jsonb default '{}', p_vendor text default null, p_connection text default null
) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(coalesce(to_jsonb(c), '{}') || jsonb_build_object(
           'vendor', u.vendor, 'connection', u.connection,
           'requests', l.requests, 'now', now(), 'probe_share',
           greatest(0, least(l.probe_share, l.warn_from - l.probe_share)))
           order by u.vendor, u.connection), '[]')
    from (select distinct vendor, connection from kvitt.integrations
           where enabled and (p_vendor is null or vendor = p_vendor)
             and (p_connection is null or connection = p_connection)) u
    left join kvitt.connections c using (vendor, connection),
    kvitt.budget_limits(u.vendor, u.connection, (p_allowances ->> u.vendor)::bigint) l
$$;

-- Gives connections the mode that they have by default, [{vendor, connection, mode, reason}]. Those
-- of which somebody has said it, alone or with all of their vendor, keep that.
create function kvitt.enrol_connections(p_connections jsonb) returns void
language sql security definer set search_path = '' as $$
  insert into kvitt.connections as c
         (vendor, connection, mode, mode_by, mode_reason, by_default)
  select n.vendor, n.connection, coalesce(v.mode, n.mode), coalesce(v.mode_by, 'kvitt'),
         coalesce(v.mode_reason, n.reason), v.vendor is null
    from jsonb_to_recordset(p_connections)
           as n (vendor text, connection text, mode kvitt.connection_mode, reason text)
    left join kvitt.vendor_modes v using (vendor)
   order by n.vendor, n.connection
  on conflict (vendor, connection) do update set
    mode = excluded.mode, mode_reason = excluded.mode_reason, mode_by = 'kvitt'
   where c.by_default and c.trial_at is null
     and (c.mode <> excluded.mode
          or c.mode = 'passive' and c.mode_reason <> excluded.mode_reason)
$$;

-- ---------------------------------------------------------------------------------------------
-- Probes

-- Whether probes leave to exports what those will need this month, by their pace and by what they
-- needed in the last one: with it, they stay below the warning.
create function kvitt.probes_fit(p_vendor text, p_connection text, p_allowance bigint)
returns boolean
language sql stable set search_path = '' as $$
  select l.requests is null or coalesce(sum(b.probes) filter (where b.month = kvitt.this_month()), 0)
           + coalesce(max((b.requests - b.probes) * case when b.month < kvitt.this_month() then 1
               else extract(epoch from kvitt.end_of_month(b.month) - b.month at time zone 'UTC')
                    / greatest(86400, extract(epoch from now() - b.month at time zone 'UTC')) end),
             0)
         < l.requests * l.warn_from
    from kvitt.budget_limits(p_vendor, p_connection, p_allowance) l
    left join kvitt.budgets b on (b.vendor, b.connection) = (p_vendor, p_connection)
     and b.month >= kvitt.this_month() - interval '1 month'
   group by l.requests, l.warn_from
$$;

-- Reserves what the probes of a claim may spend, as reserve_requests does for one client: in a few
-- statements for any number of them, and nothing where exports will need it.
create function kvitt.reserve_probes(p_claim uuid, p_vendors jsonb) returns void
language plpgsql set search_path = '' as $$
begin
  with new as (
    insert into kvitt.budgets (vendor, connection, month)
    select vendor, connection, kvitt.this_month() from kvitt.connections where claim = p_claim
     order by vendor, connection
    on conflict do nothing returning vendor, connection
  )
  delete from kvitt.reservations r using new
   where (r.vendor, r.connection) = (new.vendor, new.connection) and r.month < kvitt.this_month();
  perform from kvitt.budgets b join kvitt.connections c using (vendor, connection)
   where c.claim = p_claim and b.month = kvitt.this_month()
   order by vendor, connection for update of b;
  update kvitt.budgets b set allowance = (p_vendors #>> array[c.vendor, 'allowance'])::bigint
    from kvitt.connections c
   where c.claim = p_claim and (c.vendor, c.connection) = (b.vendor, b.connection)
     and b.month = kvitt.this_month();
  with granted as (
    select b.vendor, b.connection, b.month, c.reservation,
           case when kvitt.probes_fit(b.vendor, b.connection, b.allowance)
                then least((p_vendors #>> array[b.vendor, 'requests'])::bigint,
                           ceil(kvitt.budget_room(b, true) / 8.0)::bigint) else 0 end as many
      from kvitt.budgets b join kvitt.connections c using (vendor, connection)
     where c.claim = p_claim and b.month = kvitt.this_month()
       and not exists (select from kvitt.reservations r where r.id = c.reservation)
  ), counted as (
    update kvitt.budgets b set requests = b.requests + g.many, probes = b.probes + g.many
      from granted g
     where (b.vendor, b.connection, b.month) = (g.vendor, g.connection, g.month)
  )
  insert into kvitt.reservations (id, vendor, connection, month, for_probes, requests)
  select reservation, vendor, connection, month, true, many from granted;
end $$;

-- Gives back what probes have not spent, as return_requests does for one client.
create function kvitt.return_probes(p_results jsonb) returns void
language plpgsql set search_path = '' as $$
declare
  vendors text[];
  connections text[];
begin
  perform from kvitt.budgets b join kvitt.reservations r using (vendor, connection, month)
    join jsonb_to_recordset(p_results) as said (reservation uuid) on r.id = said.reservation
   order by vendor, connection for update of b;
  with back as (
    delete from kvitt.reservations r
     using jsonb_to_recordset(p_results) as said (reservation uuid, spent jsonb)
     where r.id = said.reservation
    returning r.vendor, r.connection, r.month, said.spent,
              r.requests - kvitt.sum_of(said.spent) as unspent
  ), counted as (
    update kvitt.budgets b set
      requests = b.requests - back.unspent, probes = b.probes - back.unspent,
      spent = kvitt.add_up(b.spent, back.spent)
      from back
     where (b.vendor, b.connection, b.month) = (back.vendor, back.connection, back.month)
  )
  select array_agg(vendor), array_agg(connection) into vendors, connections
    from back where unspent > 0;
  perform kvitt.go_on_with_budget(waiting.vendor, waiting.connection) from (
    select distinct i.vendor, i.connection
      from kvitt.periods p join kvitt.integrations i on i.id = p.integration_id
      join unnest(vendors, connections) as back (vendor, connection)
        on (back.vendor, back.connection) = (i.vendor, i.connection)
     where p.waiting_for = 'budget' and p.not_before > now()) waiting;
end $$;

-- Hands out the probes that are due, and reserves what they may spend, for one prober: active
-- connections whose time has come, and passive ones whose limit may be over. Each has a probe at most
-- in p_every, whoever asks, and also where a prober dies; none that an export uses just now, since
-- that says more. p_vendors: {vendor: {allowance, requests}}, the most that a probe takes. With each
-- connection comes its `grant`; one of nothing means that no probe is to be made.
create function kvitt.claim_probes(p_claim uuid, p_vendors jsonb, p_every interval) returns jsonb
language plpgsql security definer set search_path = '' as $$
begin
  with busy as (
    select distinct i.vendor, i.connection
      from kvitt.periods p join kvitt.integrations i on i.id = p.integration_id
     where p.leased_until > now()
  ), due as (
    select c.vendor, c.connection from kvitt.connections c
     where c.next_probe_at <= now() and (c.mode = 'active' or c.trial_at <= now())
       and p_vendors ? c.vendor
       and exists (select from kvitt.integrations i where i.enabled
                      and (i.vendor, i.connection) = (c.vendor, c.connection))
       and not exists (select from busy b
                        where (b.vendor, b.connection) = (c.vendor, c.connection))
       and not exists (select from kvitt.connections where claim = p_claim) -- asked twice
     order by c.vendor, c.connection for update of c skip locked
  )
  update kvitt.connections c set
    claim = p_claim, trial = c.mode = 'passive', reservation = gen_random_uuid(),
    next_probe_at = now() + p_every
  from due where (c.vendor, c.connection) = (due.vendor, due.connection);
  perform kvitt.reserve_probes(p_claim, p_vendors);
  return (
    select coalesce(jsonb_agg(to_jsonb(c) || jsonb_build_object('grant', jsonb_build_object(
             'reserved', r.requests,
             'seconds', extract(epoch from kvitt.end_of_month(r.month) - clock_timestamp()),
             'month', r.month, 'allowance', l.requests, 'counted', b.requests, 'warned', false))
             order by c.vendor, c.connection), '[]')
      from kvitt.connections c join kvitt.reservations r on r.id = c.reservation
      join kvitt.budgets b
        on (b.vendor, b.connection, b.month) = (r.vendor, r.connection, r.month),
      kvitt.budget_limits(b.vendor, b.connection, b.allowance) l
     where c.claim = p_claim);
end $$;

-- What a connection is after what was heard of it: answered, turned-away (by a limit) or failed.
create function kvitt.state_after(p_was kvitt.connections, p_heard text)
returns kvitt.connection_state
language sql immutable set search_path = '' as $$
  select case
    when p_heard = 'answered' then 'healthy'
    when p_was.state = 'unhealthy' then 'unhealthy'
    when p_heard = 'turned-away' then 'degraded'
    when p_was.mode = 'passive' or p_was.failures >= 2 then 'unhealthy'
    else 'degraded' end::kvitt.connection_state
$$;

-- Writes down what came of claimed probes, and gives back what they did not spend:
-- [{vendor, connection, reservation, heard, why, wait, spent}]. heard is as in state_after, or
-- `unasked`: no probe was made, which says nothing of the connection. The next one comes after `wait`.
-- A trial that is answered ends the passive mode; after any other one it lasts for another `wait`.
-- A probe that fails says nothing of a passive connection, also of one that became so meanwhile.
-- Twice is once.
create function kvitt.record_probes(p_claim uuid, p_results jsonb) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform from kvitt.connections where claim = p_claim order by vendor, connection for update;
  update kvitt.connections c set
    claim = null, trial = false, unasked = case when r.heard = 'unasked' then r.why end,
    last_probe_at = case when r.heard = 'unasked' then c.last_probe_at else now() end,
    next_probe_at = case when c.mode = 'active' and r.heard <> 'answered'
      then greatest(c.next_probe_at, now() + r.wait) else c.next_probe_at end,
    mode = case when c.trial and r.heard = 'answered' then 'active' else c.mode end,
    mode_by = case when c.trial and r.heard = 'answered' then 'kvitt' else c.mode_by end,
    mode_reason = case when c.trial and r.heard = 'answered'
      then 'a trial probe was answered after the cool-down' else c.mode_reason end,
    trial_at = case when not c.trial then c.trial_at
      when r.heard <> 'answered' then now() + r.wait end,
    cool_downs = c.cool_downs + (c.trial and r.heard in ('failed', 'turned-away'))::integer,
    state = case when r.heard = 'unasked' or c.mode = 'passive' and r.heard <> 'answered'
      then c.state else kvitt.state_after(c, r.heard) end,
    why = case when r.heard = 'answered' then null
      when r.heard = 'unasked' or c.mode = 'passive' then c.why else r.why end,
    failures = case when r.heard = 'answered' then 0
      when r.heard = 'failed' and c.mode = 'active' then c.failures + 1 else c.failures end
  from jsonb_to_recordset(p_results)
         as r (vendor text, connection text, heard text, why text, wait interval)
  where (c.vendor, c.connection) = (r.vendor, r.connection) and c.claim = p_claim;
  perform kvitt.return_probes(p_results);
end $$;

-- Writes down what real traffic met at a connection (heard, as in state_after). It counts like a
-- probe, so that none is needed for p_every; after a limit none for p_wait. p_note names this word:
-- said twice is once. Nothing where the connection is not enrolled.
create function kvitt.note_traffic(
  p_note uuid, p_vendor text, p_connection text, p_heard text, p_why text, p_every interval,
  p_wait interval
) returns void
language sql security definer set search_path = '' as $$
  update kvitt.connections c set
    last_note = p_note, last_traffic_at = now(), unasked = null,
    next_probe_at = case when p_heard = 'answered' then now() + p_every
      else greatest(c.next_probe_at, now() + p_wait) end,
    state = kvitt.state_after(c, p_heard),
    why = case when p_heard = 'answered' then null else p_why end,
    failures = case p_heard when 'answered' then 0
      when 'failed' then c.failures + 1 else c.failures end
  where vendor = p_vendor and connection = p_connection and last_note is distinct from p_note
$$;

-- ---------------------------------------------------------------------------------------------
-- Modes

-- Sets the mode of a connection, or of all of a vendor's where p_connection is null; the last word
-- counts. Answers how many connections changed. A person's word (p_cool_down is null) holds until the
-- next one. After a limit (p_cool_down from now, the p_cool_downs-th in a row) a trial may end the
-- passive mode; one that holds already only lasts so long at least, and never ends for that.
create function kvitt.set_mode(
  p_vendor text, p_connection text, p_mode kvitt.connection_mode, p_reason text, p_by text,
  p_cool_down interval default null, p_cool_downs integer default 0
) returns integer
language plpgsql security definer set search_path = '' as $$
declare
  changed integer;
begin
  if coalesce(trim(p_reason), '') = '' or coalesce(trim(p_by), '') = '' then
    raise exception 'a mode is not set without a reason, and a name' using errcode = 'KV003';
  elsif p_cool_down is not null and p_mode <> 'passive' then
    raise exception 'only the passive mode has a cool-down' using errcode = 'KV003';
  elsif not exists (select from kvitt.integrations where vendor = p_vendor
                       and (p_connection is null or connection = p_connection)) then
    raise exception 'no integration has the connection %', concat_ws('/', p_vendor, p_connection)
      using errcode = 'KV004';
  end if;
  if p_connection is null and p_cool_down is null then
    insert into kvitt.vendor_modes as v (vendor, mode, mode_by, mode_reason)
    values (p_vendor, p_mode, p_by, p_reason)
    on conflict (vendor) do update set
      mode = excluded.mode, mode_by = excluded.mode_by, mode_reason = excluded.mode_reason,
      mode_since = now();
  elsif p_connection is not null then
    insert into kvitt.connections (vendor, connection, mode, mode_by, mode_reason, by_default)
    select p_vendor, p_connection, coalesce(v.mode, 'active'), coalesce(v.mode_by, 'kvitt'),
           coalesce(v.mode_reason, 'it is new'), v.vendor is null
      from (values (p_vendor)) as new (vendor) left join kvitt.vendor_modes v using (vendor)
    on conflict do nothing;
  end if;
  perform from kvitt.connections
   where vendor = p_vendor and (p_connection is null or connection = p_connection)
   order by connection for update;
  if p_cool_down is null then
    update kvitt.connections c set
      mode = p_mode, mode_by = p_by, mode_reason = p_reason, by_default = false, trial_at = null,
      cool_downs = 0, trial = false,
      next_probe_at = case when c.mode <> p_mode then now() else c.next_probe_at end
    where vendor = p_vendor and (p_connection is null or connection = p_connection)
      and (c.mode <> p_mode or c.by_default or c.trial_at is not null or c.mode_reason <> p_reason);
  else
    update kvitt.connections c set
      mode = 'passive', trial = false,
      mode_by = case when c.mode = 'active' then p_by else c.mode_by end,
      mode_reason = case when c.mode = 'active' then p_reason else c.mode_reason end,
      trial_at = greatest(c.trial_at, now() + p_cool_down),
      cool_downs = case when c.mode = 'active' then p_cool_downs else c.cool_downs end
    where vendor = p_vendor and (p_connection is null or connection = p_connection)
      and (c.mode = 'active' or c.trial_at is not null);
  end if;
  get diagnostics changed = row_count;
  if p_connection is null then
    update kvitt.connection_changes set told_at = now()
     where vendor = p_vendor and what = 'mode' and told_at is null and changed_at = now();
    insert into kvitt.connection_changes (vendor, what, became, reason, who)
    values (p_vendor, 'mode', p_mode, p_reason, p_by);
  end if;
  return changed;
end $$;

-- The changes of modes of which Prefect has had no event yet, oldest first.
create function kvitt.untold_modes() returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(c) order by c.id), '[]') from kvitt.connection_changes c
   where what = 'mode' and told_at is null
$$;

create function kvitt.modes_told(p_ids bigint[]) returns void
language sql security definer set search_path = '' as $$
  update kvitt.connection_changes set told_at = now() where id = any (p_ids) and told_at is null
$$;

-- ---------------------------------------------------------------------------------------------
-- Incidents

-- The connections that are unhealthy, as incidents. In plpgsql, since what the enum has got above is
-- not to be used in the same transaction.
create function kvitt.unhealthy_connections()
returns table (kind kvitt.incident_kind, subject text, integration_id text, due_at timestamptz,
               periods bigint, since timestamptz, what text)
language plpgsql stable set search_path = '' as $$
begin
  return query
  select 'unhealthy'::kvitt.incident_kind, concat(c.vendor, '/', c.connection), null::text,
         null::timestamptz, 0::bigint, c.state_since,
         format('%s: the connection %s/%s is unhealthy since %s UTC: %s. Nothing is lost: what is '
           'due waits, and goes on by itself when it answers. If the accounting system is not known '
           'to be down, look at its status, and at the connection''s block in Prefect; kvitt health '
           'shows all', u.who, c.vendor, c.connection,
           to_char(c.state_since at time zone 'UTC', 'YYYY-MM-DD HH24:MI'), rtrim(c.why, '. '))
    from kvitt.connections c, lateral (
      select string_agg(distinct i.organisation, ', ') as who from kvitt.integrations i
       where (i.vendor, i.connection) = (c.vendor, c.connection) and i.enabled) u
   where c.state = 'unhealthy' and u.who is not null;
end $$;

-- As before, and the unhealthy connections with it.
create or replace function kvitt.note_incidents(p_integration text default null) returns void
language plpgsql security definer set search_path = '' as $$
begin
  lock table kvitt.incidents in share row exclusive mode; -- two watchers at once: one after the other
  insert into kvitt.incidents as i (kind, subject, integration_id, due_at, periods, since, what)
  select * from kvitt.troubles(p_integration)
  union all
  select * from kvitt.unhealthy_connections() where p_integration is null
  on conflict (kind, subject) where ended_at is null do update set
    due_at = excluded.due_at, periods = excluded.periods, what = excluded.what, seen_at = now();
  update kvitt.incidents i set ended_at = now()
   where i.ended_at is null and i.seen_at <> now() and i.kind not in ('unreadable', 'unaligned')
     and (p_integration is null or i.integration_id = p_integration);
end $$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.read_connections(jsonb, text, text),
  kvitt.enrol_connections(jsonb),
  kvitt.claim_probes(uuid, jsonb, interval),
  kvitt.record_probes(uuid, jsonb),
  kvitt.note_traffic(uuid, text, text, text, text, interval, interval),
  kvitt.set_mode(text, text, kvitt.connection_mode, text, text, interval, integer),
  kvitt.untold_modes(),
  kvitt.modes_told(bigint[])
to service_role;
