-- Voucher numbers: where each integration's begin, and that those of two do not meet in the same books.

alter table kvitt.integrations add column first_voucher_number bigint not null default 1
  check (first_voucher_number between 1 and 2000000000); -- Xledger's field has 32 bits
comment on column kvitt.integrations.first_voucher_number is
  'The number of its first voucher. It can change until a record was taken.';
comment on column kvitt.integrations.last_voucher_number is
  'The last number given to a voucher of this integration; moved by collect_page, and begun by the first.';

-- Whoever states where the numbers begin, and however: none is given twice.
create function kvitt.begin_voucher_numbers() returns trigger
language plpgsql set search_path = '' as $$
begin
  if tg_op = 'UPDATE' and exists (
    select from kvitt.records where integration_id = new.id and voucher_number is not null
  ) then
    raise exception 'integration %: first_voucher_number: it cannot change from % to % once a record '
      'was taken, and the next voucher is number %', new.id, old.first_voucher_number,
      new.first_voucher_number, old.last_voucher_number + 1 using errcode = 'KV003';
  end if;
  new.last_voucher_number := new.first_voucher_number - 1;
  return new;
end $$;

create trigger voucher_numbers_begin before insert on kvitt.integrations
  for each row execute function kvitt.begin_voucher_numbers();
create trigger voucher_numbers_begin_elsewhere before update on kvitt.integrations
  for each row when (old.first_voucher_number <> new.first_voucher_number)
  execute function kvitt.begin_voucher_numbers();

-- The source under which Xledger keeps an integration's voucher numbers, as it compares codes.
create function kvitt.source_of(p_integration kvitt.integrations) returns text
language sql immutable set search_path = '' as $$
  select nullif(upper(btrim(p_integration.mapping ->> 'source')), '')
$$;

-- Each integration counts its own vouchers, and Xledger's posting job takes the staged rows of one
-- source and number for one voucher. So those that write into one entity need a source each. Two that
-- had none get theirs one after the other; a new one waits for that. What one that is switched off has
-- numbered stays there: its source can be taken over only with numbers above.
-- As in cli/files.py, which says so of a whole file before anything is saved.
create function kvitt.keep_voucher_numbers_apart() returns trigger
language plpgsql set search_path = '' as $$
declare
  own text := kvitt.source_of(new);
  comes boolean := tg_op = 'INSERT' or (old.vendor, old.connection, old.enabled)
                     is distinct from (new.vendor, new.connection, new.enabled);
  other record;
begin
  perform pg_advisory_xact_lock(20261124092300); -- two that are saved at once see each other
  select i.id, i.enabled, kvitt.source_of(i) as source, i.last_voucher_number as last into other
    from kvitt.integrations i
   where (i.vendor, i.connection) = (new.vendor, new.connection) and i.id <> new.id and case
     when i.enabled then own is null or own = kvitt.source_of(i)
                         or (comes and kvitt.source_of(i) is null)
     else own is not distinct from kvitt.source_of(i)
          and i.last_voucher_number >= greatest(i.first_voucher_number, new.first_voucher_number) end
   order by i.enabled desc, i.id limit 1;
  if found then
    raise exception 'integration %: mapping.source: % writes into the same books (connection %), and '
      '%, or their voucher numbers meet there', new.id, other.id, new.connection, case
        when not other.enabled then 'numbered vouchers up to ' || other.last || ' under the same '
          || 'source before it was switched off. Give ' || new.id || ' another, or a '
          || 'first_voucher_number above'
        when own is null then new.id || ' has no source. Give it one of its own'
        when other.source is null then other.id || ' has no source. Give that one its own first'
        else 'both have the source ' || own || '. Give one of them another' end
      using errcode = 'KV003';
  end if;
  return null;
end $$;

create trigger voucher_numbers_meet
  after insert or update of vendor, connection, mapping, enabled, first_voucher_number
  on kvitt.integrations for each row when (new.vendor = 'xledger' and new.enabled)
  execute function kvitt.keep_voucher_numbers_apart();

-- As before (20261124090100_getting_data_in.sql), and with the first voucher number.
create or replace function kvitt.save_integration(p_integration jsonb) returns text
language plpgsql security definer set search_path = '' as $$
declare
  before kvitt.integrations;
  after kvitt.integrations;
begin
  select * into before from kvitt.integrations where id = p_integration ->> 'id' for update;
  insert into kvitt.integrations as i
    (id, organisation, vendor, connection, cron, time_zone, first_period, book_currency,
     mapping, limits, timeouts, enabled, scheduler, ping, first_voucher_number)
  select v.id, v.organisation, v.vendor, v.connection, v.cron, v.time_zone, v.first_period,
         v.book_currency, coalesce(v.mapping, '{}'), coalesce(v.limits, '{}'),
         coalesce(v.timeouts, '{}'), coalesce(v.enabled, true), coalesce(v.scheduler, 'prefect'),
         v.ping, coalesce(v.first_voucher_number, 1)
    from jsonb_populate_record(null::kvitt.integrations, p_integration) v
  on conflict (id) do update set
    organisation = excluded.organisation, vendor = excluded.vendor,
    connection = excluded.connection, cron = excluded.cron, time_zone = excluded.time_zone,
    first_period = excluded.first_period, book_currency = excluded.book_currency,
    mapping = excluded.mapping, limits = excluded.limits, timeouts = excluded.timeouts,
    enabled = excluded.enabled, scheduler = excluded.scheduler, ping = excluded.ping,
    first_voucher_number = excluded.first_voucher_number
  returning * into after;

  perform now() at time zone after.time_zone; -- an error for a zone that Postgres does not know
  if before.id is null then
    return 'created';
  elsif to_jsonb(before) = to_jsonb(after) then
    return 'unchanged';
  end if;
  if (before.vendor, before.connection) <> (after.vendor, after.connection) then
    perform kvitt.must_not_be_halfway(after.id);
  end if;
  if before.book_currency <> after.book_currency and exists (
    select from kvitt.records where integration_id = after.id
  ) then
    raise exception 'integration %: the book currency % cannot change once there are records',
      after.id, before.book_currency using errcode = 'KV003';
  end if;
  update kvitt.integrations set
    updated_at = now(),
    expected_since = case when enabled and not before.enabled then now() else expected_since end
  where id = after.id;
  if (before.cron, before.time_zone, before.first_period)
     is distinct from (after.cron, after.time_zone, after.first_period) then
    update kvitt.integrations set schedule_since = now() where id = after.id;
    delete from kvitt.periods
     where integration_id = after.id and state = 'due' and due_at > now() and fence = 0;
  end if;
  return 'changed';
end $$;

revoke execute on all functions in schema kvitt from public;
