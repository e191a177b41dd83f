-- The budget: how many requests a month a connection may spend, and who has spent them.
--
-- A connection is a vendor and a connection's name; all integrations that name both share it. Months
-- are calendar months in UTC. Requests are reserved before they are made, in lots, and what is left
-- over is given back: what a killed process had reserved stays counted. So what is counted here is
-- never less than what the vendor was asked.
--
-- Locks are taken in one order: integrations, budgets, periods.

create table kvitt.budgets (
  vendor text not null,
  connection text not null,
  month date not null check (extract(day from month) = 1),
  allowance bigint check (allowance >= 0),
  requests bigint not null default 0 check (requests >= 0),
  probes bigint not null default 0 check (probes between 0 and requests),
  spent jsonb not null default '{}' check (jsonb_typeof(spent) = 'object'),
  warned_at timestamptz,
  warned_by uuid,
  primary key (vendor, connection, month),
  check ((warned_at is null) = (warned_by is null))
);
comment on table kvitt.budgets is 'What a connection spends of its vendor''s requests, by month.';
comment on column kvitt.budgets.allowance is
  'What the vendor documents for a month, as its client says it; null where it has no such limit.';
comment on column kvitt.budgets.requests is
  'What counts: all that was spent, and all that is reserved and was not given back.';
comment on column kvitt.budgets.probes is 'How many of these are for probes.';
comment on column kvitt.budgets.spent is 'What is known to be spent, by purpose.';
comment on column kvitt.budgets.warned_at is 'When the last part of the month''s requests began.';

create table kvitt.reservations (
  id uuid primary key,
  vendor text not null,
  connection text not null,
  month date not null,
  for_probes boolean not null,
  for_backfill boolean not null default false,
  requests bigint not null default 0,
  spent jsonb not null default '{}',
  reserved_at timestamptz not null default now(),
  foreign key (vendor, connection, month) references kvitt.budgets (vendor, connection, month)
);
comment on table kvitt.reservations is
  'What a client has reserved and not given back: it is at work, or it was killed.';
comment on column kvitt.reservations.requests is 'How many, in all; those that it spent included.';

create function kvitt.number_at(p_limits jsonb, p_name text) returns numeric
language sql immutable set search_path = '' as $$
  select case when jsonb_typeof(p_limits -> 'budget' -> p_name) = 'number'
              then (p_limits -> 'budget' ->> p_name)::numeric end
$$;

-- What counts for a connection: of what its enabled integrations state, the strictest. A value that
-- makes no sense counts as none: one broken integration stops nobody else.
create function kvitt.budget_limits(
  p_vendor text, p_connection text, p_allowance bigint,
  out requests bigint, out paid boolean, out probe_share numeric, out warn_from numeric,
  out backfill_share numeric
)
language sql stable set search_path = '' as $$
  select coalesce(min(kvitt.number_at(i.limits, 'requests'))::bigint, p_allowance),
         coalesce(bool_and((i.limits #>> '{budget,paid}')::boolean)
                    filter (where jsonb_typeof(i.limits #> '{budget,paid}') = 'boolean'), false),
         coalesce(min(kvitt.number_at(i.limits, 'probe_share')), 0.05),
         coalesce(min(kvitt.number_at(i.limits, 'warn_from')), 0.9),
         coalesce(min(kvitt.number_at(i.limits, 'backfill_share')), 0.5)
    from kvitt.integrations i
   where i.vendor = p_vendor and i.connection = p_connection and i.enabled
$$;

create function kvitt.add_up(p_one jsonb, p_other jsonb, p_sign integer default 1) returns jsonb
language sql immutable set search_path = '' as $$
  select coalesce(jsonb_object_agg(purpose, many), '{}') from (
    select key as purpose, sum(many) as many from (
      select key, value::bigint as many from jsonb_each_text(p_one)
      union all
      select key, p_sign * value::bigint from jsonb_each_text(p_other)) both_of_them
     group by key) by_purpose
$$;

create function kvitt.sum_of(p_counts jsonb) returns bigint
language sql immutable set search_path = '' as $$
  select coalesce(sum(value::bigint), 0)::bigint from jsonb_each_text(p_counts)
$$;

-- How many requests are left, for probes or for the rest; null for any number. Probes have a share of
-- the month, and stop that share before the warning comes. Periods that are filled in go on only while
-- what all have spent is below their share, so that the schedule's own always find room.
create function kvitt.budget_room(
  p_budget kvitt.budgets, p_probes boolean, p_backfill boolean default false
) returns bigint
language sql stable set search_path = '' as $$
  select greatest(0, case
    when p_probes then least(
      floor(l.requests * l.probe_share)::bigint - p_budget.probes,
      floor(l.requests * (l.warn_from - l.probe_share))::bigint - p_budget.requests)
    when p_backfill then floor(l.requests * least(l.backfill_share, 1))::bigint - p_budget.requests
    else l.requests - p_budget.requests end)
  from kvitt.budget_limits(p_budget.vendor, p_budget.connection, p_budget.allowance) l
  where l.requests is not null and (p_probes or not l.paid)
$$;

create function kvitt.this_month() returns date
language sql stable set search_path = '' as $$
  select date_trunc('month', now() at time zone 'UTC')::date
$$;

create function kvitt.end_of_month(p_month date) returns timestamptz
language sql immutable set search_path = '' as $$
  select (p_month + interval '1 month') at time zone 'UTC'
$$;

-- Reserves requests for one client, so that it has p_wanted of them in all, or as many as may be had;
-- p_spent is what it has spent of them so far, by purpose. Near the end it gets an eighth of what is
-- left: a client that hoards leaves something for the others. Answers {reserved: how many it has in
-- all, seconds: until its month ends, month, allowance, counted, warned}. One whose month is over gets
-- no more, and is to give back what it has.
create function kvitt.reserve_requests(
  p_reservation uuid, p_vendor text, p_connection text, p_probes boolean, p_wanted bigint,
  p_spent jsonb, p_allowance bigint, p_backfill boolean default false
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  mine kvitt.reservations;
  budget kvitt.budgets;
  limits record;
  more bigint := 0;
begin
  select * into mine from kvitt.reservations where id = p_reservation;
  if not found or mine.month = kvitt.this_month() then
    budget := kvitt.budget_of_this_month(p_vendor, p_connection, p_allowance);
    insert into kvitt.reservations (id, vendor, connection, month, for_probes, for_backfill)
    values (p_reservation, p_vendor, p_connection, budget.month, p_probes, p_backfill)
    on conflict do nothing;
    select * into mine from kvitt.reservations where id = p_reservation for update;
    more := greatest(0, least(p_wanted - mine.requests, ceil(
      kvitt.budget_room(budget, mine.for_probes, mine.for_backfill) / 8.0)::bigint));
    update kvitt.budgets b set
      requests = b.requests + more,
      probes = b.probes + case when mine.for_probes then more else 0 end,
      spent = kvitt.add_up(kvitt.add_up(b.spent, p_spent), mine.spent, -1)
    where (b.vendor, b.connection, b.month) = (mine.vendor, mine.connection, mine.month);
    update kvitt.reservations set requests = requests + more, spent = p_spent
     where id = p_reservation returning * into mine;
  end if;
  select * into limits from kvitt.budget_limits(mine.vendor, mine.connection, p_allowance);
  update kvitt.budgets b set warned_at = now(), warned_by = p_reservation
   where (b.vendor, b.connection, b.month) = (mine.vendor, mine.connection, mine.month)
     and b.warned_at is null and b.requests >= limits.requests * limits.warn_from;
  select * into budget from kvitt.budgets b
   where (b.vendor, b.connection, b.month) = (mine.vendor, mine.connection, mine.month);
  return jsonb_build_object(
    'reserved', mine.requests,
    'seconds', extract(epoch from kvitt.end_of_month(mine.month) - clock_timestamp()),
    'month', mine.month, 'allowance', limits.requests, 'counted', budget.requests,
    'warned', budget.warned_by is not distinct from p_reservation);
end $$;

-- The budget of this month, locked. The first request of a month makes it, and forgets what killed
-- clients had reserved of earlier ones, which stays counted there.
create function kvitt.budget_of_this_month(p_vendor text, p_connection text, p_allowance bigint)
returns kvitt.budgets
language plpgsql set search_path = '' as $$
declare
  budget kvitt.budgets;
begin
  insert into kvitt.budgets (vendor, connection, month)
  values (p_vendor, p_connection, kvitt.this_month()) on conflict do nothing;
  if found then
    delete from kvitt.reservations
     where vendor = p_vendor and connection = p_connection and month < kvitt.this_month();
  end if;
  update kvitt.budgets set allowance = p_allowance
   where (vendor, connection, month) = (p_vendor, p_connection, kvitt.this_month())
  returning * into budget;
  return budget;
end $$;

-- Gives back what a client has left, and says what it spent, by purpose. Twice is once.
create function kvitt.return_requests(p_reservation uuid, p_spent jsonb) returns void
language plpgsql security definer set search_path = '' as $$
declare
  mine kvitt.reservations;
  unspent bigint;
begin
  select * into mine from kvitt.reservations where id = p_reservation;
  perform from kvitt.budgets b
   where (b.vendor, b.connection, b.month) = (mine.vendor, mine.connection, mine.month) for update;
  delete from kvitt.reservations where id = p_reservation returning * into mine;
  if not found then
    return;
  end if;
  unspent := mine.requests - kvitt.sum_of(p_spent);
  update kvitt.budgets b set
    requests = b.requests - unspent,
    probes = b.probes - case when mine.for_probes then unspent else 0 end,
    spent = kvitt.add_up(kvitt.add_up(b.spent, p_spent), mine.spent, -1)
  where (b.vendor, b.connection, b.month) = (mine.vendor, mine.connection, mine.month);
  perform kvitt.go_on_with_budget(mine.vendor, mine.connection);
end $$;

-- Lets the periods go on that wait for the budget of a connection, if there is something left of it.
create function kvitt.go_on_with_budget(p_vendor text, p_connection text) returns void
language plpgsql set search_path = '' as $$
declare
  budget kvitt.budgets;
begin
  select * into budget from kvitt.budgets
   where (vendor, connection, month) = (p_vendor, p_connection, kvitt.this_month()) for update;
  update kvitt.periods set not_before = now()
   where waiting_for = 'budget' and not_before > now()
     and state not in ('verified', 'skipped')
     and coalesce(kvitt.budget_room(budget, false, backfill), 1) > 0
     and integration_id in (select id from kvitt.integrations
                             where vendor = p_vendor and connection = p_connection);
end $$;

-- Somebody allows more, or less, or moves an integration to another connection.
create function kvitt.limits_changed() returns trigger
language plpgsql set search_path = '' as $$
begin
  perform kvitt.go_on_with_budget(old.vendor, old.connection);
  if (new.vendor, new.connection) <> (old.vendor, old.connection) then
    perform kvitt.go_on_with_budget(new.vendor, new.connection);
  end if;
  return null;
end $$;

create trigger limits_changed after update on kvitt.integrations
  for each row when (
    (old.vendor, old.connection, old.limits, old.enabled)
      is distinct from (new.vendor, new.connection, new.limits, new.enabled))
  execute function kvitt.limits_changed();

-- Where each connection stands, by month, the latest first; of one connection's name, or of all.
create function kvitt.read_budgets(p_connection text default null) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(jsonb_build_object(
           'vendor', b.vendor, 'connection', b.connection, 'month', b.month,
           'counted', b.requests, 'spent', b.spent, 'allowance', l.requests, 'paid', l.paid,
           'warned_at', b.warned_at, 'now', now())
           order by b.month desc, b.vendor, b.connection), '[]')
    from kvitt.budgets b, kvitt.budget_limits(b.vendor, b.connection, b.allowance) l
   where p_connection is null or b.connection = p_connection
$$;

-- ---------------------------------------------------------------------------------------------
-- Patience

-- Lets a period wait that could not get on: for a vendor or an Edge Function that is away, p_wait from
-- now; for a budget that is spent, until p_wait after the end of the month, or until more is allowed.
-- Answers until when. p_postponed is how often in a row it has waited then. claim_period answers
-- 'waiting' until that time, to all but a person.
create function kvitt.postpone_period(
  p_integration text, p_due timestamptz, p_fence bigint, p_waiting_for text, p_wait interval,
  p_postponed integer, p_reason text
) returns timestamptz
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
  until timestamptz := now() + p_wait;
begin
  if p_waiting_for = 'budget' then
    until := kvitt.budget_is_back(p_integration, p_due, p_wait);
  end if;
  it := kvitt.hold(p_integration, p_due, p_fence);
  if it.waiting_for is not null then
    return it.not_before; -- said twice
  elsif it.state not in ('collecting', 'collected', 'exporting', 'exported') then
    raise exception 'period % is %, which does not wait for anybody', it.key, it.state
      using errcode = 'KV005';
  end if;
  update kvitt.periods set
    waiting_for = p_waiting_for, not_before = until, postponed = p_postponed, reason = p_reason
  where integration_id = p_integration and due_at = p_due;
  return until;
end $$;

-- When a period may ask its vendor again. The budget is locked until the period waits for it:
-- who allows more meanwhile comes before that, and is seen here, or after it, and lets it go on.
create function kvitt.budget_is_back(p_integration text, p_due timestamptz, p_wait interval)
returns timestamptz
language plpgsql set search_path = '' as $$
declare
  budget kvitt.budgets;
begin
  select b.* into budget from kvitt.budgets b join kvitt.integrations i
      on (i.vendor, i.connection) = (b.vendor, b.connection)
   where i.id = p_integration and b.month = kvitt.this_month() for update of b;
  if coalesce(kvitt.budget_room(budget, false, (
    select backfill from kvitt.periods where integration_id = p_integration and due_at = p_due
  )), 1) > 0 then
    return now();
  end if;
  return kvitt.end_of_month(budget.month) + p_wait;
end $$;

-- ---------------------------------------------------------------------------------------------

alter table kvitt.budgets enable row level security;
alter table kvitt.reservations enable row level security;
grant select on kvitt.budgets, kvitt.reservations to service_role;
revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.reserve_requests(uuid, text, text, boolean, bigint, jsonb, bigint, boolean),
  kvitt.return_requests(uuid, jsonb),
  kvitt.read_budgets(text),
  kvitt.postpone_period(text, timestamptz, bigint, text, interval, integer, text)
to service_role;
