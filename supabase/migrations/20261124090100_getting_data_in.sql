-- Getting data in: integrations, their calendar, and approved records.
-- An organisation's app and the command line call the same functions.

-- Creates or changes an integration. Periods that are due keep what they were; future ones of a
-- changed schedule are taken out, and plan_periods writes them anew from where they left off.
create function kvitt.save_integration(p_integration jsonb) returns text
language plpgsql security definer set search_path = '' as $$
declare
  before kvitt.integrations;
  after kvitt.integrations;
begin
  select * into before from kvitt.integrations where id = p_integration ->> 'id' for update;
  insert into kvitt.integrations as i
    (id, organisation, vendor, connection, cron, time_zone, first_period, book_currency,
     mapping, limits, timeouts, enabled, scheduler, ping)
  select v.id, v.organisation, v.vendor, v.connection, v.cron, v.time_zone, v.first_period,
         v.book_currency, coalesce(v.mapping, '{}'), coalesce(v.limits, '{}'),
         coalesce(v.timeouts, '{}'), coalesce(v.enabled, true), coalesce(v.scheduler, 'prefect'),
         v.ping
    from jsonb_populate_record(null::kvitt.integrations, p_integration) v
  on conflict (id) do update set
    organisation = excluded.organisation, vendor = excluded.vendor,
    connection = excluded.connection, cron = excluded.cron, time_zone = excluded.time_zone,
    first_period = excluded.first_period, book_currency = excluded.book_currency,
    mapping = excluded.mapping, limits = excluded.limits, timeouts = excluded.timeouts,
    enabled = excluded.enabled, scheduler = excluded.scheduler, ping = excluded.ping
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

-- Whether something of a chunk is in the books, or may be. One that was sent before it was found absent
-- or refused may have been there in part, and what was missing sent again.
create function kvitt.may_be_booked(p_chunk kvitt.chunks) returns boolean
language sql immutable set search_path = '' as $$
  select p_chunk.state not in ('unsent', 'refused') or p_chunk.sends > 1 or p_chunk.absences > 0
$$;

-- The rest of a period that is half exported goes where the first half went.
create function kvitt.must_not_be_halfway(p_integration text) returns void
language plpgsql stable set search_path = '' as $$
declare
  halfway text;
begin
  select p.key into halfway from kvitt.periods p
   where p.integration_id = p_integration and p.state not in ('verified', 'skipped')
     and exists (select from kvitt.chunks c
                  where (c.integration_id, c.due_at) = (p.integration_id, p.due_at)
                    and kvitt.may_be_booked(c))
   order by p.due_at limit 1;
  if found then
    raise exception 'integration %: its vendor and connection cannot change while period % is '
      'half exported; let that one settle, or skip it', p_integration, halfway
      using errcode = 'KV003';
  end if;
end $$;

-- What the calendar needs to know before it can be written on: where it ends, and what time it is.
create function kvitt.calendar(p_integration text) returns jsonb
language sql stable security definer set search_path = '' as $$
  select jsonb_build_object(
    'now', now(),
    'cron', i.cron,
    'time_zone', i.time_zone,
    'first_period', i.first_period,
    'schedule_since', i.schedule_since,
    'planned_until', (select max(due_at) from kvitt.periods where integration_id = i.id))
  from kvitt.integrations i where i.id = p_integration
$$;

-- Writes the calendar on: p_due are due times in order, the first period opening at p_opens_at,
-- each later one when the one before it is due. Rows that are there stay as they are: twice, or
-- from two at once, is once.
create function kvitt.plan_periods(p_integration text, p_opens_at timestamptz, p_due timestamptz[])
returns integer
language plpgsql security definer set search_path = '' as $$
declare
  planned_until timestamptz;
  written integer;
begin
  perform from kvitt.integrations where id = p_integration for update;
  if not found then
    raise exception 'there is no integration %', p_integration using errcode = 'KV004';
  end if;
  select max(due_at) into planned_until from kvitt.periods where integration_id = p_integration;
  insert into kvitt.periods (integration_id, due_at, opens_at, key)
  select p_integration, due,
         coalesce(lag(due) over (order by due), planned_until, p_opens_at),
         kvitt.period_key(p_integration, due)
    from unnest(p_due) as due
   where planned_until is null or due > planned_until;
  get diagnostics written = row_count;
  return written;
end $$;

create function kvitt.period_key(p_integration text, p_due timestamptz) returns text
language sql stable set search_path = '' as $$
  select p_integration || '@' || to_char(p_due at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI"Z"')
$$;

-- Adds approved records, all or none. The format is documented in docs/records.md. A record that
-- is there already with the same content is passed over; with other content it is an error that
-- names it. Amounts are decimal strings or JSON numbers; trailing zeros mean nothing.
create function kvitt.add_records(p_records jsonb) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  added integer := 0;
  present integer := 0;
  item jsonb;
begin
  if jsonb_typeof(p_records) is distinct from 'array' then
    raise exception 'records come as a JSON array' using errcode = 'KV003';
  end if;
  for item in select value from jsonb_array_elements(p_records) loop
    if kvitt.add_record(item) then
      added := added + 1;
    else
      present := present + 1;
    end if;
  end loop;
  return jsonb_build_object('added', added, 'present', present);
end $$;

-- One record: true when it is new, false when the same is there.
create function kvitt.add_record(p_record jsonb) returns boolean
language plpgsql security definer set search_path = '' as $$
declare
  head kvitt.records;
  lines kvitt.record_lines[];
  line jsonb;
  known text;
  who text := coalesce(p_record ->> 'integration', '?') || ', record '
              || coalesce(p_record ->> 'id', '?');
  books text;
  rounding jsonb;
begin
  select book_currency, nullif(mapping -> 'rounding', 'null') into books, rounding
    from kvitt.integrations where id = p_record ->> 'integration';
  if not found then
    raise exception 'there is no integration %', p_record ->> 'integration'
      using errcode = 'KV004';
  end if;

  if jsonb_typeof(p_record -> 'lines') is distinct from 'array' then
    raise exception '%: its lines come as a JSON array', who using errcode = 'KV003';
  end if;
  perform kvitt.must_be_known(who, p_record, array['integration', 'id', 'kind', 'approved_at',
    'voucher_date', 'currency', 'text', 'lines']);
  perform kvitt.must_be(who, p_record, 'id', 'word', true);
  perform kvitt.must_be(who, p_record, 'kind', 'word', true);
  perform kvitt.must_be(who, p_record, 'approved_at', 'time', true);
  perform kvitt.must_be(who, p_record, 'voucher_date', 'date', true);
  perform kvitt.must_be(who, p_record, 'text', 'text', false);
  for line in select value from jsonb_array_elements(p_record -> 'lines') loop
    perform kvitt.must_be_known(who, line, array['account', 'amount', 'book_amount', 'party', 'tax',
      'dimensions', 'text']);
    perform kvitt.must_be(who, line, 'account', 'word', true);
    perform kvitt.must_be(who, line, 'amount', 'amount', true);
    perform kvitt.must_be(who, line, 'book_amount', 'amount', false);
    perform kvitt.must_be(who, line, 'party', 'word', false);
    perform kvitt.must_be(who, line, 'tax', 'word', false);
    perform kvitt.must_be(who, line, 'text', 'text', false);
    perform kvitt.must_be_words(who, line -> 'dimensions');
  end loop;
  head := jsonb_populate_record(null::kvitt.records, p_record);
  head.integration_id := p_record ->> 'integration';
  head.text := coalesce(head.text, '');
  lines := kvitt.lines_of(p_record, books);
  head.line_count := coalesce(cardinality(lines), 0);
  if head.line_count < 2 then
    raise exception '%: a voucher has two lines at least', who using errcode = 'KV003';
  end if;
  perform kvitt.must_balance(who, head.currency, books, lines);
  lines := kvitt.rounded(who, head.currency, books, rounding, lines);
  head.line_count := cardinality(lines);
  perform kvitt.must_be_exact(who, head.currency, books, lines);
  head.digest := kvitt.digest_of(head, lines);

  insert into kvitt.records
    (integration_id, id, kind, approved_at, voucher_date, currency, text, line_count, digest)
  values (head.integration_id, head.id, head.kind, head.approved_at, head.voucher_date,
          head.currency, head.text, head.line_count, head.digest)
  on conflict (integration_id, id) do nothing;
  if not found then
    select digest into known from kvitt.records
     where integration_id = head.integration_id and id = head.id;
    if known = head.digest then
      return false;
    end if;
    raise exception '%: it is there already with other content; a record does not change, a '
      'correction is a new record that reverses and replaces it', who using errcode = 'KV002';
  end if;
  insert into kvitt.record_lines select (unnest(lines)).*;
  return true;
exception
  when not_null_violation or check_violation or invalid_text_representation
    or invalid_datetime_format or datetime_field_overflow or numeric_value_out_of_range then
    raise exception '%: %', who, sqlerrm using errcode = 'KV003';
end $$;

create function kvitt.lines_of(p_record jsonb, p_books text) returns kvitt.record_lines[]
language sql stable set search_path = '' as $$
  select array_agg((p_record ->> 'integration', p_record ->> 'id', n, l ->> 'account',
           l ->> 'party', (l ->> 'amount')::numeric,
           coalesce((l ->> 'book_amount')::numeric,
             case when p_record ->> 'currency' = p_books then (l ->> 'amount')::numeric end),
           l ->> 'tax', coalesce(nullif(l -> 'dimensions', 'null'), '{}'), l ->> 'text',
           null, null)::kvitt.record_lines
         order by n)
    from jsonb_array_elements(p_record -> 'lines') with ordinality as given (l, n)
$$;

-- A misspelt field is an error, not a silence.
create function kvitt.must_be_known(p_who text, p_given jsonb, p_fields text[]) returns void
language plpgsql immutable set search_path = '' as $$
declare
  field text;
begin
  if jsonb_typeof(p_given) is distinct from 'object' then
    raise exception '%: % is no JSON object', p_who, p_given using errcode = 'KV003';
  end if;
  select key into field from jsonb_object_keys(p_given) as key
   where key <> all (p_fields) order by key limit 1;
  if found then
    raise exception '%: there is no field %; there are %', p_who, field,
      array_to_string(p_fields, ', ') using errcode = 'KV003';
  end if;
end $$;

-- What each field may look like. Times have an offset, so that they mean the same everywhere, and
-- lie in years that every accounting system knows. An amount has at most 14 digits before the point
-- and 8 behind it: the sums of a whole period then stay exact wherever they are added up.
create function kvitt.must_be(
  p_who text, p_given jsonb, p_field text, p_kind text, p_required boolean
) returns void
language plpgsql immutable set search_path = '' as $$
declare
  given jsonb := p_given -> p_field;
  told text := p_given ->> p_field;
  fits boolean;
begin
  if told is null then
    if p_required then
      raise exception '%: % is missing', p_who, p_field using errcode = 'KV003';
    end if;
    return;
  end if;
  fits := case p_kind
    when 'word' then jsonb_typeof(given) = 'string' and told ~ '\S' and told !~ '[[:cntrl:]]'
    when 'text' then jsonb_typeof(given) = 'string'
    when 'date' then told ~ '^(19|20|21)\d\d-\d\d-\d\d$'
    when 'time' then told ~ ('^(19|20|21)\d\d-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?'
                             '(Z|[+-]\d\d(:?\d\d)?)$')
    when 'amount' then jsonb_typeof(given) in ('string', 'number')
                       and told ~ '^-?\d{1,14}(\.\d{1,8}0*)?$'
    end;
  if not fits then
    raise exception '%: % is no %: %', p_who, p_field, p_kind, left(told, 60)
      using errcode = 'KV003';
  end if;
end $$;

-- Dimensions map words to words.
create function kvitt.must_be_words(p_who text, p_dimensions jsonb) returns void
language plpgsql immutable set search_path = '' as $$
declare
  name text;
begin
  if p_dimensions is null or p_dimensions = 'null' then
    return;
  elsif jsonb_typeof(p_dimensions) <> 'object' then
    raise exception '%: dimensions are an object of words', p_who using errcode = 'KV003';
  end if;
  select key into name from jsonb_each(p_dimensions)
   where jsonb_typeof(value) <> 'string' or key !~ '\S' or key ~ '[[:cntrl:]]'
      or value #>> '{}' !~ '\S' or value #>> '{}' ~ '[[:cntrl:]]' order by key limit 1;
  if found then
    raise exception '%: dimension % is no word: write "10", not 10', p_who, name
      using errcode = 'KV003';
  end if;
end $$;

-- ISO 4217: how many decimals a currency has; two, where it is not listed. As in the domain's
-- money.py, which the tests hold against this.
create function kvitt.minor_units(p_currency text) returns integer
language sql immutable set search_path = '' as $$
  select case
    when p_currency = any ('{BIF,CLP,DJF,GNF,ISK,JPY,KMF,KRW,PYG,RWF,UGX,UYI,VND,VUV,XAF,XOF,XPF}')
      then 0
    when p_currency = any ('{BHD,IQD,JOD,KWD,LYD,OMR,TND}') then 3
    when p_currency = any ('{CLF,UYW}') then 4
    else 2 end
$$;

-- By the mapping's rule, and by nothing else: what is booked gets the decimals of the books, half a
-- unit away from zero, and the difference becomes a line on the account that the rule names. The
-- amounts that were approved are kept beside. An amount in another currency than the books' stays as
-- it is, so that a difference that comes from converting is a line of 0 in that currency.
-- As in the domain's records.py, which the tests hold against this.
create function kvitt.rounded(
  p_who text, p_currency text, p_books text, p_rule jsonb, p_lines kvitt.record_lines[]
) returns kvitt.record_lines[]
language plpgsql immutable set search_path = '' as $$
declare
  lines kvitt.record_lines[] := '{}';
  line kvitt.record_lines;
  over numeric := 0;
begin
  if p_rule is null then
    return p_lines;
  end if;
  foreach line in array p_lines loop
    if line.book_amount <> round(line.book_amount, kvitt.minor_units(p_books)) then
      line.approved_amount := line.amount;
      line.approved_book_amount := line.book_amount;
      line.book_amount := round(line.book_amount, kvitt.minor_units(p_books));
      if line.book_amount = 0 then
        raise exception '%: line % has % %, which rounds to 0', p_who, line.number,
          line.approved_book_amount, p_books using errcode = 'KV003';
      end if;
      if p_currency = p_books then
        line.amount := line.book_amount;
      end if;
    end if;
    over := over + line.book_amount;
    lines := array_append(lines, line);
  end loop;
  if over <> 0 then
    line := (line.integration_id, line.record_id, line.number + 1, p_rule ->> 'account', null,
             case when p_currency = p_books then -over else 0 end, -over, null, '{}',
             p_rule ->> 'text', 0, 0)::kvitt.record_lines;
    lines := array_append(lines, line);
  end if;
  return lines;
end $$;

-- An accounting system would round what is finer than its currency, and then show another sum.
create function kvitt.must_be_exact(
  p_who text, p_currency text, p_books text, p_lines kvitt.record_lines[]
) returns void
language plpgsql immutable set search_path = '' as $$
declare
  finer record;
begin
  select l.number, given.amount, given.currency into finer
    from unnest(p_lines) l,
         lateral (values (l.amount, p_currency), (l.book_amount, p_books)) given (amount, currency)
   where given.amount <> round(given.amount, kvitt.minor_units(given.currency))
   order by l.number limit 1;
  if found then
    raise exception '%: line % has % %, finer than the currency is', p_who, finer.number,
      finer.amount, finer.currency using errcode = 'KV003';
  end if;
end $$;

-- A voucher balances in its own currency and in the books', or it is none.
create function kvitt.must_balance(
  p_who text, p_currency text, p_books text, p_lines kvitt.record_lines[]
) returns void
language plpgsql immutable set search_path = '' as $$
declare
  own numeric;
  booked numeric;
begin
  select sum(amount), sum(book_amount) into own, booked from unnest(p_lines);
  if own <> 0 then
    raise exception '%: its lines sum to % %, and must sum to 0', p_who, own, p_currency
      using errcode = 'KV003';
  elsif exists (select from unnest(p_lines) where book_amount = 0) then
    raise exception '%: a line of 0 % in the books books nothing', p_who, p_books
      using errcode = 'KV003';
  elsif exists (select from unnest(p_lines) where book_amount is null) then
    raise exception '%: it is in %, so each line needs its book_amount in %',
      p_who, p_currency, p_books using errcode = 'KV003';
  elsif booked <> 0 then
    raise exception '%: its lines sum to % % in the books, and must sum to 0',
      p_who, booked, p_books using errcode = 'KV003';
  elsif p_currency = p_books and exists (
    select from unnest(p_lines) where amount <> book_amount
  ) then
    raise exception '%: it is in the books'' own currency %, so amount and book_amount are one',
      p_who, p_books using errcode = 'KV003';
  end if;
end $$;

-- Over the values, not over their spelling: 100, "100" and "100.00" are the same amount. And over
-- what was approved, not over what a rule made of it.
create function kvitt.digest_of(p_head kvitt.records, p_lines kvitt.record_lines[]) returns text
language sql stable set search_path = '' as $$
  select encode(sha256(convert_to(jsonb_build_array(
    p_head.kind, extract(epoch from p_head.approved_at), p_head.voucher_date, p_head.currency,
    p_head.text,
    (select jsonb_agg(jsonb_build_array(account, party,
              trim_scale(coalesce(approved_amount, amount)),
              trim_scale(coalesce(approved_book_amount, book_amount)), tax, dimensions, text)
              order by number)
       from unnest(p_lines) where coalesce(approved_book_amount, 1) <> 0))::text, 'UTF8')), 'hex')
$$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.save_integration(jsonb),
  kvitt.calendar(text),
  kvitt.plan_periods(text, timestamptz, timestamptz[]),
  kvitt.add_records(jsonb)
to service_role;
