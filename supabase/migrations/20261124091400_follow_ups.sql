-- Follow-ups: some vendors post what they took in their own time, after the receipt was written. The
-- receipt stays as it is; here stands what became of it since: posted, still waiting, or refused.
--
-- A look is asked for (claim_looks), made, and written down (record_look), by one looker at a time
-- per connection, under a lease. Each function is safe to call twice with the same arguments.

create type kvitt.follow_up_state as enum (
  'waiting',   -- → posted, refused, differs, abandoned    the vendor's posting has not had it all
  'refused',   -- → waiting, posted, differs, abandoned    it refused vouchers: a person mends them
  'differs',   -- → waiting, refused, posted, abandoned    twice, the books held more or less than was sent
  'abandoned', -- → waiting                                nobody looks any more, until a person asks
  'posted'     -- →                                        all that was sent is final
);

-- Where a voucher is that was not posted with the rest. `refused` is staged as well, and the vendor
-- says why it does not post it; what was mended there is `staged` until its next posting.
-- refused → staged, posted, neither; staged → refused, posted, neither; neither → any; posted → any
create type kvitt.voucher_place as enum ('refused', 'staged', 'posted', 'neither');

create table kvitt.follow_ups (
  integration_id text not null,
  due_at timestamptz not null,
  vendor text not null,
  connection text not null,
  state kvitt.follow_up_state not null default 'waiting',
  -- What the last look saw: final, and final or staged.
  posted jsonb not null default '{}',
  held jsonb not null default '{}',
  note text,
  looks integer not null default 0,
  odd_looks integer not null default 0,
  odd_at timestamptz,
  requests jsonb not null default '{}' check (jsonb_typeof(requests) = 'object'),
  -- When, and who.
  since timestamptz not null default now(),
  next_look_at timestamptz,
  looked_at timestamptz,
  posted_at timestamptz,
  looker uuid,
  leased_until timestamptz,
  told kvitt.follow_up_state,
  primary key (integration_id, due_at),
  foreign key (integration_id, due_at) references kvitt.periods (integration_id, due_at),
  check ((next_look_at is null) = (state in ('posted', 'abandoned'))),
  check ((posted_at is not null) = (state = 'posted'))
);
comment on table kvitt.follow_ups is
  'A settled period whose lines waited for the vendor''s own posting: what became of them.';
comment on column kvitt.follow_ups.connection is
  'Where the period was exported to, and is looked at, wherever its integration exports to now.';
comment on column kvitt.follow_ups.since is
  'From when on the looks are spread out: when it was settled, or a person asked for a look.';
comment on column kvitt.follow_ups.odd_looks is
  'How many looks in a row, some minutes apart, saw more or less than was sent.';
comment on column kvitt.follow_ups.told is 'The state that an event was raised for.';

-- claim_looks: those that are not at an end, of which there are few.
create index follow_ups_open on kvitt.follow_ups (next_look_at) where next_look_at is not null;

create table kvitt.refusals (
  integration_id text not null,
  due_at timestamptz not null,
  sequence bigint not null,
  record_id text not null,
  place kvitt.voucher_place not null,
  reason text,
  seen_at timestamptz not null default now(),
  absences integer not null default 0,
  absent_at timestamptz,
  told_at timestamptz,
  deleted_by text,
  deleted_at timestamptz,
  goes_again boolean not null default false,
  closed_at timestamptz,
  mended_as text,
  primary key (integration_id, due_at, sequence),
  foreign key (integration_id, due_at) references kvitt.follow_ups (integration_id, due_at),
  foreign key (integration_id, record_id) references kvitt.records (integration_id, id),
  foreign key (integration_id, mended_as) references kvitt.records (integration_id, id),
  check (place <> 'refused' or reason is not null),
  check ((deleted_by is null) = (deleted_at is null)),
  check (closed_at is null or deleted_at is not null),
  check ((mended_as is not null) = (closed_at is not null and goes_again))
);
comment on table kvitt.refusals is
  'Vouchers that the vendor took, and then did not post, or lost: which records, why, and where they are.';
comment on column kvitt.refusals.reason is 'The vendor''s own words, the last ones that it gave.';
comment on column kvitt.refusals.absences is
  'How many looks in a row, some minutes apart, saw it neither staged nor posted.';
comment on column kvitt.refusals.deleted_by is
  'Who said that its rows were deleted at the vendor; a copy goes again where goes_again.';
comment on column kvitt.refusals.closed_at is
  'When it was seen that its rows are gone, as somebody had said: it is not expected there any more.';

alter table kvitt.follow_ups enable row level security;
alter table kvitt.refusals enable row level security;
grant select on kvitt.follow_ups, kvitt.refusals to service_role;

-- ---------------------------------------------------------------------------------------------
-- Guards

create function kvitt.guard_follow_up_state() returns trigger
language plpgsql set search_path = '' as $$
begin
  if old.state = 'posted' or (old.state = 'abandoned' and new.state <> 'waiting') then
    raise exception 'the follow-up of %@%: % cannot become %',
      old.integration_id, old.due_at, old.state, new.state using errcode = 'KV005';
  end if;
  return new;
end $$;

create trigger guard_state before update of state on kvitt.follow_ups
  for each row when (old.state is distinct from new.state)
  execute function kvitt.guard_follow_up_state();

-- Settled with lines that wait: remembered in the transaction that writes the receipt.
create function kvitt.remember_follow_up() returns trigger
language plpgsql security definer set search_path = '' as $$
begin
  insert into kvitt.follow_ups (integration_id, due_at, vendor, connection, since, next_look_at)
  select i.id, new.due_at, i.vendor, i.connection, now(), now() + kvitt.until_next_look('0')
    from kvitt.integrations i where i.id = new.integration_id;
  return new;
end $$;

create trigger remember_follow_up after update of state on kvitt.periods
  for each row
  when (new.state = 'verified' and old.state <> 'verified'
        and coalesce((new.receipt -> 'read_back' ->> 'staged')::bigint, 0) > 0)
  execute function kvitt.remember_follow_up();

-- Looks cost requests, so they grow apart: after half of the time that has passed, and never sooner
-- than after 10 minutes or later than after 12 hours. 12 looks on the first day, then two a day.
create function kvitt.until_next_look(p_age interval) returns interval
language sql immutable set search_path = '' as $$
  select least(greatest(p_age / 2, interval '10 minutes'), interval '12 hours')
$$;

-- ---------------------------------------------------------------------------------------------
-- Looks

-- The looks that are due, of one connection: the one that has waited longest. Newer periods of it
-- come along though their time has not come, since the same reading shows them. The connection is
-- the one that the periods were exported to, whatever their integration says now. Answers null where
-- none is due, or all those are being looked at; else {integration, looks: [{period, lines, open,
-- left_out}]}: the lines that were sent, the vouchers to be told of wherever they are, and those
-- that are not expected to be there.
create function kvitt.claim_looks(p_looker uuid, p_lease interval) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  chosen record;
begin
  -- Whoever comes second sees what the first one took: never two lookers for one connection.
  perform pg_advisory_xact_lock(20261124091400);
  if not exists (select from kvitt.follow_ups
                  where looker = p_looker and leased_until > now()) then
    select f.vendor, f.connection, min(f.due_at) as oldest into chosen
      from kvitt.follow_ups f
     where f.next_look_at <= now() and not exists (
       select from kvitt.follow_ups l
        where (l.vendor, l.connection) = (f.vendor, f.connection)
          and l.next_look_at is not null and l.leased_until > now())
     group by f.vendor, f.connection order by min(f.next_look_at) limit 1;
    if not found then
      return null;
    end if;
    update kvitt.follow_ups f set looker = p_looker, leased_until = now() + p_lease
     where (f.integration_id, f.due_at) in (
       select o.integration_id, o.due_at from kvitt.follow_ups o
        where (o.vendor, o.connection) = (chosen.vendor, chosen.connection)
          and (o.next_look_at <= now()
               or (o.next_look_at is not null and o.due_at >= chosen.oldest))
        order by o.next_look_at limit 100);
  end if;
  return (
    with taken as (
      select f.integration_id, f.due_at, f.vendor, f.connection, p from kvitt.follow_ups f
        join kvitt.periods p on (p.integration_id, p.due_at) = (f.integration_id, f.due_at)
       where f.looker = p_looker and f.leased_until > now()
    )
    select jsonb_build_object(
      'integration', (
        select to_jsonb(i) - array['created_at', 'updated_at']
               || jsonb_build_object('vendor', t.vendor, 'connection', t.connection)
          from taken t join kvitt.integrations i on i.id = t.integration_id
         order by i.id limit 1),
      'looks', jsonb_agg(jsonb_build_object(
        'period', to_jsonb(t.p) - 'receipt',
        'lines', ((t.p).receipt -> 'sent' ->> 'lines')::bigint,
        'open', (select coalesce(jsonb_agg(r.sequence order by r.sequence), '[]')
                   from kvitt.refusals r where (r.integration_id, r.due_at)
                      = (t.integration_id, t.due_at) and r.closed_at is null),
        'left_out', (select coalesce(jsonb_agg(o.sequence order by o.sequence), '[]') from (
                       select sequence from kvitt.set_aside a where (a.integration_id, a.due_at)
                            = (t.integration_id, t.due_at)
                       union
                       select sequence from kvitt.refusals r where (r.integration_id, r.due_at)
                            = (t.integration_id, t.due_at) and r.closed_at is not null) o))
        order by t.integration_id, t.due_at))
      from taken t);
end $$;

-- The follow-up, locked, if the caller's lease holds; otherwise KV001.
create function kvitt.hold_look(p_looker uuid, p_integration text, p_due timestamptz)
returns kvitt.follow_ups
language plpgsql set search_path = '' as $$
declare
  it kvitt.follow_ups;
begin
  select * into it from kvitt.follow_ups
   where integration_id = p_integration and due_at = p_due for update;
  if not found then
    raise exception '% at %: nothing of it is followed up', p_integration, p_due
      using errcode = 'KV004';
  elsif it.looker is distinct from p_looker or it.leased_until <= clock_timestamp() then
    raise exception '% at %: somebody else looks, or the time for this look ran out',
      p_integration, p_due using errcode = 'KV001';
  end if;
  return it;
end $$;

-- Writes down what a look saw, and what that means. p_posted is what is final, p_held that and what
-- is staged: see kvitt.totals. p_vouchers is [{sequence, place, reason}] for each voucher that was
-- refused, is asked for as open, or is missing. Absence counts when it was seen twice, p_gap apart:
-- what is being posted is in neither of the vendor's tables for a moment. Answers as as_shown.
create function kvitt.record_look(
  p_looker uuid, p_integration text, p_due timestamptz, p_posted jsonb, p_held jsonb,
  p_vouchers jsonb, p_note text, p_gap interval, p_requests jsonb
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.follow_ups;
  expected jsonb;
begin
  it := kvitt.hold_look(p_looker, p_integration, p_due);
  if it.leased_until is null then
    return kvitt.as_shown(it); -- said twice
  end if;
  perform kvitt.note_vouchers(p_integration, p_due, p_vouchers, p_gap);
  expected := kvitt.expected_in_books(p_integration, p_due);
  it.posted := kvitt.in_books(p_posted);
  it.held := kvitt.in_books(p_held);
  if it.held = expected then
    it.odd_looks := 0;
    it.odd_at := null;
  elsif it.odd_at is null or now() - it.odd_at >= p_gap then
    it.odd_looks := it.odd_looks + 1;
    it.odd_at := now();
  end if;
  it.state := case
    when it.posted = expected and it.held = expected then 'posted'
    when now() - it.since > interval '60 days' then 'abandoned'
    when exists (select from kvitt.refusals where (integration_id, due_at) = (p_integration, p_due)
                  and place = 'refused' and closed_at is null) then 'refused'
    when it.odd_looks >= 2 then 'differs'
    else 'waiting' end;
  it.next_look_at := case
    when it.state in ('posted', 'abandoned') then null
    when it.odd_looks = 1 or kvitt.deletion_to_verify(p_integration, p_due) then now() + p_gap
    else now() + kvitt.until_next_look(now() - it.since) end;
  update kvitt.follow_ups f set
    state = it.state, posted = it.posted, held = it.held, odd_looks = it.odd_looks,
    odd_at = it.odd_at, note = p_note, looks = looks + 1, looked_at = now(),
    next_look_at = it.next_look_at, leased_until = null,
    posted_at = case when it.state = 'posted' then now() end,
    requests = (select coalesce(jsonb_object_agg(purpose, spent), '{}') from (
                  select e.key as purpose, sum(e.value::bigint) as spent from (
                    select * from jsonb_each_text(f.requests)
                    union all
                    select * from jsonb_each_text(p_requests)) e group by e.key) by_purpose)
  where f.integration_id = p_integration and f.due_at = p_due
  returning * into it;
  return kvitt.as_shown(it);
end $$;

-- Totals as they are compared: without the original currencies, which no posting changes.
create function kvitt.in_books(p_totals jsonb) returns jsonb
language sql immutable set search_path = '' as $$
  select kvitt.totals((p_totals ->> 'vouchers')::bigint, (p_totals ->> 'lines')::bigint, '{}',
    (p_totals ->> 'booked')::numeric, (p_totals ->> 'checksum')::numeric)
$$;

-- What was sent, without what was deleted there, as somebody said and looks have seen.
create function kvitt.expected_in_books(p_integration text, p_due timestamptz) returns jsonb
language plpgsql stable set search_path = '' as $$
declare
  it kvitt.periods;
  expected jsonb;
  gone bigint;
begin
  select * into it from kvitt.periods where integration_id = p_integration and due_at = p_due;
  expected := it.receipt -> 'sent';
  for gone in select sequence from kvitt.refusals where integration_id = p_integration
      and due_at = p_due and closed_at is not null loop
    expected := kvitt.plus(expected, kvitt.totals_of_vouchers(it, gone, gone), -1);
  end loop;
  return kvitt.in_books(expected);
end $$;

-- Somebody said that rows were deleted, and it was not seen twice yet that they are.
create function kvitt.deletion_to_verify(p_integration text, p_due timestamptz) returns boolean
language sql stable set search_path = '' as $$
  select exists (select from kvitt.refusals
    where (integration_id, due_at) = (p_integration, p_due) and place = 'neither'
      and deleted_at is not null and closed_at is null)
$$;

-- What is known of each voucher that is not posted with the rest. One that was only on its way from
-- one of the vendor's tables to the other is forgotten again. One that a person said was deleted, and
-- that was seen in neither table twice since, is closed, and goes again as a copy if they wanted that.
create function kvitt.note_vouchers(
  p_integration text, p_due timestamptz, p_vouchers jsonb, p_gap interval
) returns void
language plpgsql set search_path = '' as $$
begin
  insert into kvitt.refusals as r
    (integration_id, due_at, sequence, record_id, place, reason, absences, absent_at)
  select p_integration, p_due, v.sequence, e.id, v.place, v.reason,
         (v.place = 'neither')::integer, case when v.place = 'neither' then now() end
    from jsonb_to_recordset(p_vouchers)
           as v(sequence bigint, place kvitt.voucher_place, reason text)
    join kvitt.records e on (e.integration_id, e.period_due_at, e.sequence)
                          = (p_integration, p_due, v.sequence)
  on conflict (integration_id, due_at, sequence) do update set
    place = excluded.place,
    reason = coalesce(excluded.reason, r.reason),
    -- To be told again: other words, or gone.
    told_at = case
      when excluded.place = 'refused' and excluded.reason is distinct from r.reason then null
      when excluded.place = 'neither' and r.place <> 'neither' then null
      else r.told_at end,
    absences = case
      when excluded.place <> 'neither' then 0
      when r.absent_at is null or now() - r.absent_at >= p_gap then r.absences + 1
      else r.absences end,
    absent_at = case
      when excluded.place <> 'neither' then null
      when r.absent_at is null or now() - r.absent_at >= p_gap then now()
      else r.absent_at end;
  delete from kvitt.refusals
   where integration_id = p_integration and due_at = p_due and place in ('staged', 'posted')
     and reason is null and told_at is null and deleted_at is null;
  update kvitt.refusals set
    closed_at = now(),
    mended_as = case when goes_again then kvitt.approve_again(p_integration, record_id) end
  where integration_id = p_integration and due_at = p_due and place = 'neither'
    and absences >= 2 and deleted_at is not null and closed_at is null;
end $$;

-- A look could not be made: the vendor does not answer, or its connection cannot be opened. All that
-- the looker holds is looked at later, in p_wait at the earliest.
create function kvitt.put_off_looks(p_looker uuid, p_reason text, p_wait interval) returns void
language sql security definer set search_path = '' as $$
  update kvitt.follow_ups set
    leased_until = null, note = p_reason,
    next_look_at = now() + greatest(p_wait, kvitt.until_next_look(now() - since))
  where looker = p_looker and leased_until is not null
$$;

-- An event was raised for what a look saw. Until then each look answers it anew.
create function kvitt.look_told(
  p_integration text, p_due timestamptz, p_state kvitt.follow_up_state, p_sequences bigint[]
) returns void
language plpgsql security definer set search_path = '' as $$
begin
  update kvitt.follow_ups set told = p_state
   where integration_id = p_integration and due_at = p_due;
  update kvitt.refusals set told_at = now()
   where integration_id = p_integration and due_at = p_due and sequence = any (p_sequences);
end $$;

-- ---------------------------------------------------------------------------------------------
-- For people

-- A follow-up as it is shown: how it stands, and each voucher that is not posted with the rest.
-- `untold` are those of which no event was raised yet.
create function kvitt.as_shown(p_follow_up kvitt.follow_ups) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'integration', p.integration_id, 'due_at', p.due_at, 'key', p.key, 'vendor', p_follow_up.vendor,
    'time_zone', i.time_zone, 'state', p_follow_up.state, 'told', p_follow_up.told,
    'looks', p_follow_up.looks, 'looked_at', p_follow_up.looked_at,
    'next_look_at', p_follow_up.next_look_at, 'posted_at', p_follow_up.posted_at,
    'note', p_follow_up.note, 'requests', p_follow_up.requests,
    'lines', (kvitt.expected_in_books(p.integration_id, p.due_at) ->> 'lines')::bigint,
    'posted', coalesce((p_follow_up.posted ->> 'lines')::bigint, 0),
    'held', coalesce((p_follow_up.held ->> 'lines')::bigint, 0),
    'vouchers', (
      select coalesce(jsonb_agg(jsonb_build_object(
          'sequence', r.sequence, 'record', r.record_id, 'voucher_number', e.voucher_number,
          'place', r.place, 'reason', r.reason, 'absences', r.absences,
          'deleted_by', r.deleted_by, 'goes_again', r.goes_again,
          'closed', r.closed_at is not null, 'mended_as', r.mended_as,
          'untold', r.told_at is null and r.deleted_at is null
                    and (r.place = 'refused' or (r.place = 'neither' and r.absences >= 2)))
          order by r.sequence), '[]')
        from kvitt.refusals r join kvitt.records e
          on (e.integration_id, e.id) = (r.integration_id, r.record_id)
       where (r.integration_id, r.due_at) = (p.integration_id, p.due_at)))
  from kvitt.periods p join kvitt.integrations i on i.id = p.integration_id
 where (p.integration_id, p.due_at) = (p_follow_up.integration_id, p_follow_up.due_at)
$$;

-- Follow-ups, newest first: of one integration or of all, of one period or of the latest ones. Where
-- there are more than p_limit, those that are posted are left out first.
create function kvitt.read_follow_ups(
  p_integration text default null, p_due timestamptz default null, p_limit integer default 100
) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(kvitt.as_shown(f.it) order by (f.it).due_at desc), '[]') from (
    select it from kvitt.follow_ups it
     where (p_integration is null or it.integration_id = p_integration)
       and (p_due is null or it.due_at = p_due)
     order by it.state = 'posted', it.due_at desc limit p_limit) f
$$;

-- Has a period looked at soon, and for another while: a person has mended something at the vendor,
-- or wants to know. Answers the key.
create function kvitt.look_again(p_integration text, p_due timestamptz) returns text
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.follow_ups;
begin
  select * into it from kvitt.follow_ups
   where integration_id = p_integration and due_at = p_due for update;
  if not found then
    raise exception '% at %: nothing of it is followed up; only what waited for the vendor''s own '
      'posting is', p_integration, p_due using errcode = 'KV004';
  elsif it.state = 'posted' then
    raise exception '% at %: all of it is posted', p_integration, p_due using errcode = 'KV005';
  end if;
  update kvitt.follow_ups set
    state = case when state = 'abandoned' then 'waiting' else state end,
    since = now(), next_look_at = now()
  where integration_id = p_integration and due_at = p_due;
  return (select key from kvitt.periods where integration_id = p_integration and due_at = p_due);
end $$;

-- Raises what a person is to do, where a record was sent and the vendor did not post it: its rows may
-- still be posted there, so a copy could be booked twice.
create function kvitt.demand_not_sent(p_integration text, p_record text) returns void
language plpgsql stable set search_path = '' as $$
begin
  if exists (select from kvitt.refusals where integration_id = p_integration
              and record_id = p_record and place <> 'posted' and closed_at is null) then
    raise exception '%: record % was sent, and its rows may still be posted there: a copy could be '
      'booked twice. Mend it in the accounting system, and its next posting takes it; or delete all '
      'of its rows there, and say so with --deleted', p_integration, p_record
      using errcode = 'KV005';
  end if;
end $$;

-- A person says that they deleted the rows of a voucher that the vendor did not post. It is believed
-- when two looks, some minutes apart, have seen them nowhere: then, if p_goes_again, a copy goes with
-- the next period; else a correction goes in its place, or nothing. Answers the copy's id, or null
-- while that is still to be seen.
create function kvitt.say_deleted(
  p_integration text, p_record text, p_goes_again boolean, p_who text, p_reason text
) returns text
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.refusals;
begin
  if coalesce(trim(p_reason), '') = '' then
    raise exception 'say what was done' using errcode = 'KV003';
  end if;
  select * into it from kvitt.refusals
   where integration_id = p_integration and record_id = p_record for update;
  if not found then
    raise exception '%: record % is not one that was sent and then not posted', p_integration,
      p_record using errcode = 'KV004';
  elsif it.deleted_at is not null then
    return it.mended_as; -- said twice
  elsif it.place = 'posted' then
    raise exception '%: record % is posted; reverse it there, or approve a correction',
      p_integration, p_record using errcode = 'KV005';
  end if;
  update kvitt.refusals set
    deleted_by = p_who, deleted_at = now(), goes_again = p_goes_again, absences = 0,
    absent_at = null
  where integration_id = it.integration_id and due_at = it.due_at and sequence = it.sequence;
  insert into kvitt.decisions (integration_id, due_at, decision, record_id, who, reason)
  values (p_integration, it.due_at, 'mend record', p_record, p_who, p_reason);
  perform kvitt.look_again(p_integration, it.due_at);
  return null;
end $$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.claim_looks(uuid, interval),
  kvitt.record_look(uuid, text, timestamptz, jsonb, jsonb, jsonb, text, interval, jsonb),
  kvitt.put_off_looks(uuid, text, interval),
  kvitt.look_told(text, timestamptz, kvitt.follow_up_state, bigint[]),
  kvitt.read_follow_ups(text, timestamptz, integer),
  kvitt.look_again(text, timestamptz),
  kvitt.say_deleted(text, text, boolean, text, text)
to service_role;
