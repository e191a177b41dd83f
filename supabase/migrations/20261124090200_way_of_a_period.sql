-- The way of a period: due → collecting → collected → exporting → exported → verified.
--
-- Each function is one step, decided and written here in one transaction. Each is safe to call
-- twice with the same arguments, so that a caller whose reply was lost may simply ask again.
-- After claim_period, all of them carry the fence: whose lease ran out, or was taken over, gets
-- KV001 and has changed nothing.

-- Claims a period and opens the attempt: the oldest unfinished one that is due, or the one asked
-- for. Answers {outcome, …}; only 'claimed' gives the lease.
--   claimed   the caller works on it; state says where it stands
--   settled   the period is finished (none asked for: nothing is due, this was the last one)
--   failed    it waits for a person (none asked for: nothing else is due); see mend_period
--   waiting   uncertain, or waiting_for somebody, until not_before; a person need not wait for that
--   busy      somebody else holds the lease of this integration, until leased_until
--   early     the period asked for is not due yet
--   idle      nothing is due, and nothing ever was
--   disabled  the integration is switched off
create function kvitt.claim_period(
  p_integration text, p_attempt uuid, p_lease interval, p_trigger text,
  p_due timestamptz default null, p_scheduled_at timestamptz default null,
  p_flow_run text default null, p_worker text default null,
  p_picked_up_at timestamptz default null
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  who kvitt.integrations;
  it kvitt.periods;
begin
  -- One at a time per integration: whoever comes second sees what the first one did.
  select * into who from kvitt.integrations where id = p_integration for update;
  if not found then
    raise exception 'there is no integration %', p_integration using errcode = 'KV004';
  end if;

  select * into it from kvitt.periods
   where integration_id = p_integration and holder = p_attempt;
  if found then
    return kvitt.answer('claimed', who, it); -- asked again after a lost reply
  end if;

  it := kvitt.period_to_work_on(p_integration, p_due);
  if it.key is null then
    return jsonb_build_object('outcome', 'idle');
  elsif it.state in ('verified', 'skipped') then
    return kvitt.answer('settled', who, it);
  elsif not who.enabled then
    return kvitt.answer('disabled', who, it);
  elsif it.due_at > now() then
    return kvitt.answer('early', who, it);
  elsif it.state = 'failed' then
    return kvitt.answer('failed', who, it);
  elsif exists (select from kvitt.periods
                 where integration_id = p_integration and leased_until > now()) then
    select * into it from kvitt.periods
     where integration_id = p_integration and leased_until > now() limit 1;
    return kvitt.answer('busy', who, it);
  elsif it.state = 'uncertain' and it.not_before > now() and not kvitt.worth_a_look(it) then
    return kvitt.answer('waiting', who, it);
  elsif it.waiting_for is not null and it.not_before > now() and p_trigger <> 'person' then
    return kvitt.answer('waiting', who, it);
  end if;

  perform kvitt.adopt(it);
  update kvitt.periods set
    holder = p_attempt, leased_until = now() + p_lease, fence = fence + 1, reason = null,
    not_before = null, waiting_for = null,
    mapping = case when kvitt.keeps_its_mapping(it) then mapping else who.mapping end,
    time_zone = case when kvitt.keeps_its_mapping(it) then time_zone else who.time_zone end,
    state = case
      when state = 'due' then 'collecting'
      when state = 'uncertain' then 'exporting'
      else state end::kvitt.period_state
  where integration_id = it.integration_id and due_at = it.due_at
  returning * into it;
  insert into kvitt.attempts
    (id, integration_id, due_at, fence, trigger, scheduled_at, flow_run, worker, picked_up_at)
  values (p_attempt, it.integration_id, it.due_at, it.fence, p_trigger, p_scheduled_at,
          p_flow_run, p_worker, p_picked_up_at);
  return kvitt.answer('claimed', who, it);
end $$;

create function kvitt.period_to_work_on(p_integration text, p_due timestamptz)
returns kvitt.periods
language plpgsql stable set search_path = '' as $$
declare
  it kvitt.periods;
begin
  if p_due is not null then
    select * into it from kvitt.periods where integration_id = p_integration and due_at = p_due;
    if not found then
      raise exception '% has no period that is due at %: its periods follow its schedule',
        p_integration, p_due using errcode = 'KV004';
    end if;
    return it;
  end if;
  -- A failed one waits for a person and lets the later ones pass: what it took stays its own. The
  -- schedule's own go before those that are filled in behind it, which wait for their pace.
  select * into it from kvitt.periods
   where integration_id = p_integration and due_at <= now()
     and state not in ('verified', 'skipped', 'failed')
     and not (backfill and state = 'due' and not_before > now())
   order by backfill, due_at limit 1;
  if not found then
    -- Nothing is left but what a person must look at, or what is settled.
    select * into it from kvitt.periods
     where integration_id = p_integration and due_at <= now() and state <> 'due'
     order by (state = 'failed') desc, case when state = 'failed' then due_at end, due_at desc
     limit 1;
  end if;
  return it;
end $$;

-- A reply is missing. What is found present is confirmed at once, so a first look need not wait
-- for the settle time; after that look has said "not there (yet)", only the time helps.
create function kvitt.worth_a_look(p_period kvitt.periods) returns boolean
language sql stable set search_path = '' as $$
  select exists (select from kvitt.chunks
    where integration_id = p_period.integration_id and due_at = p_period.due_at
      and state = 'uncertain' and decided_at is null)
$$;

-- The last holder is gone: what it intended may have been sent, up to the end of its lease (or of
-- its attempt, if it gave the lease back), and the vendor may still commit it for the settle time
-- after that.
create function kvitt.adopt(p_period kvitt.periods) returns void
language plpgsql set search_path = '' as $$
begin
  update kvitt.chunks set
    state = 'uncertain', decided_at = null,
    not_before = settle + greatest(p_period.leased_until, intended_at, (
      select ended_at from kvitt.attempts a
       where (a.integration_id, a.due_at, a.fence)
           = (p_period.integration_id, p_period.due_at, chunks.fence))),
    detail = 'the attempt ended before it had a reply'
  where integration_id = p_period.integration_id and due_at = p_period.due_at
    and state = 'intended';
  update kvitt.attempts set
    ended_at = now(), outcome = 'interrupted', detail = 'it ended without a word; its lease ran out'
  where id = p_period.holder and outcome is null;
end $$;

-- A period keeps its mapping from the first call on that is, or may be, in the books: what goes
-- after it must not differ from it. Before that, each claim takes the one of the day.
-- mend_period lets go of it.
create function kvitt.keeps_its_mapping(p_period kvitt.periods) returns boolean
language sql stable set search_path = '' as $$
  select p_period.mapping is not null and exists (select from kvitt.chunks c
    where (c.integration_id, c.due_at) = (p_period.integration_id, p_period.due_at)
      and kvitt.may_be_booked(c))
$$;

-- Who works on a period works with the mapping that the period keeps. Of one that is filled in, and of
-- which nothing was sent yet, nothing is in the books that is older than this moment.
create function kvitt.answer(
  p_outcome text, p_integration kvitt.integrations, p_period kvitt.periods
) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'outcome', p_outcome,
    'integration', to_jsonb(p_integration) - array['created_at', 'updated_at']
      || case when p_outcome = 'claimed' then jsonb_build_object(
           'mapping', coalesce(p_period.mapping, p_integration.mapping),
           'time_zone', coalesce(p_period.time_zone, p_integration.time_zone)) else '{}' end,
    'period', to_jsonb(p_period) || case when p_period.backfill then jsonb_build_object(
      'first_sent_at', coalesce(p_period.first_sent_at, now())) else '{}' end)
$$;

-- The period, locked, if the caller's lease holds; otherwise KV001.
create function kvitt.hold(p_integration text, p_due timestamptz, p_fence bigint)
returns kvitt.periods
language plpgsql set search_path = '' as $$
declare
  it kvitt.periods;
begin
  select * into it from kvitt.periods
   where integration_id = p_integration and due_at = p_due for update;
  if not found then
    raise exception '% has no period that is due at %', p_integration, p_due
      using errcode = 'KV004';
  elsif it.fence <> p_fence then
    raise exception 'period %: attempt % took it over from attempt %', it.key, it.fence, p_fence
      using errcode = 'KV001';
  elsif it.holder is null or it.leased_until <= clock_timestamp() then
    raise exception 'period %: the lease of attempt % ran out', it.key, p_fence
      using errcode = 'KV001';
  end if;
  return it;
end $$;

create function kvitt.renew_lease(
  p_integration text, p_due timestamptz, p_fence bigint, p_lease interval
) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform kvitt.hold(p_integration, p_due, p_fence);
  update kvitt.periods set leased_until = clock_timestamp() + p_lease
   where integration_id = p_integration and due_at = p_due;
end $$;

create function kvitt.record_cold_start(
  p_id uuid, p_integration text, p_due timestamptz, p_attempt uuid, p_function text,
  p_kind kvitt.cold_start_kind, p_boot_ms numeric, p_reply_ms numeric, p_detail text
) returns void
language sql security definer set search_path = '' as $$
  insert into kvitt.cold_starts
    (id, integration_id, due_at, attempt, function, kind, boot_ms, reply_ms, detail)
  values (p_id, p_integration, p_due, p_attempt, p_function, p_kind, p_boot_ms, p_reply_ms,
          p_detail)
  on conflict (id) do nothing
$$;

-- ---------------------------------------------------------------------------------------------
-- The batch

-- Takes the next page of the period's records, at most p_limit; when no more are to be had, the
-- batch is frozen and done is true. Called by the Edge Function. Twice is harmless: the second
-- call takes the next page, and after the freeze there is none.
create function kvitt.collect_page(
  p_integration text, p_due timestamptz, p_fence bigint, p_limit integer
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
  page jsonb := kvitt.totals(0, 0, '{}', 0, 0);
begin
  if p_limit is null or p_limit < 1 then
    raise exception 'a page holds at least 1 record, not %', p_limit using errcode = 'KV003';
  end if;
  -- In the order in which claim_period locks, so that the two never wait for each other.
  perform from kvitt.integrations where id = p_integration for update;
  it := kvitt.hold(p_integration, p_due, p_fence);
  if it.frozen_at is null then
    page := kvitt.take_records(it, p_limit);
    update kvitt.periods set
      record_count = record_count + (page ->> 'vouchers')::bigint,
      taken = kvitt.plus(taken, page),
      frozen_at = case when (page ->> 'vouchers')::bigint < p_limit then now() end,
      state = case when (page ->> 'vouchers')::bigint < p_limit then 'collected' else state end
    where integration_id = p_integration and due_at = p_due
    returning * into it;
  end if;
  return jsonb_build_object('key', it.key, 'taken', page -> 'vouchers', 'total', it.record_count,
                            'done', it.frozen_at is not null);
end $$;

-- Approved before the period is due and not taken yet, in the order of approval. Approved late
-- means taken by the next one.
create function kvitt.take_records(p_period kvitt.periods, p_limit integer) returns jsonb
language plpgsql set search_path = '' as $$
declare
  last_number bigint;
  page jsonb;
begin
  select last_voucher_number into last_number from kvitt.integrations
   where id = p_period.integration_id for update;
  with page as (
    select r.id, row_number() over (order by r.approved_at, r.id) as n
      from kvitt.records r
     where r.integration_id = p_period.integration_id and r.period_due_at is null
       and r.approved_at < p_period.due_at
       and r.approved_at >= kvitt.left_to_earlier(p_period)
     order by r.approved_at, r.id limit p_limit
  )
  update kvitt.records r set
    period_due_at = p_period.due_at,
    sequence = p_period.record_count + page.n,
    voucher_number = last_number + page.n
  from page where r.integration_id = p_period.integration_id and r.id = page.id;
  page := kvitt.totals_of_vouchers(p_period, p_period.record_count + 1,
                                   p_period.record_count + p_limit);
  update kvitt.integrations set
    last_voucher_number = last_number + (page ->> 'vouchers')::bigint
   where id = p_period.integration_id;
  return page;
end $$;

-- What was approved before this is left to an earlier period that has yet to take it: one that is filled
-- in, one that failed before its batch was frozen, or one that was passed by as this one was asked for.
create function kvitt.left_to_earlier(p_period kvitt.periods) returns timestamptz
language sql stable set search_path = '' as $$
  select coalesce(max(due_at), '-infinity') from kvitt.periods
   where integration_id = p_period.integration_id and due_at < p_period.due_at
     and frozen_at is null and state <> 'skipped'
$$;

-- A record with its place in the batch, and its lines. Amounts are strings, so that no reader makes
-- binary floats of them.
create function kvitt.as_taken(p_record kvitt.records) returns jsonb
language sql stable set search_path = '' as $$
  select jsonb_build_object(
    'id', p_record.id, 'kind', p_record.kind, 'approved_at', p_record.approved_at,
    'voucher_date', p_record.voucher_date, 'currency', p_record.currency, 'text', p_record.text,
    'sequence', p_record.sequence, 'voucher_number', p_record.voucher_number,
    'lines', (
      select jsonb_agg(jsonb_build_object(
        'number', l.number, 'account', l.account, 'party', l.party, 'amount', l.amount::text,
        'book_amount', l.book_amount::text, 'tax', l.tax, 'dimensions', l.dimensions,
        'text', l.text) order by l.number)
        from kvitt.record_lines l
       where l.integration_id = p_record.integration_id and l.record_id = p_record.id))
$$;

-- The batch from p_after on, in sequence: as many whole records as fit both limits, one at least.
-- What was set aside is not sent, so it is left out.
create function kvitt.read_batch(
  p_integration text, p_due timestamptz, p_after bigint, p_max_records integer, p_max_lines integer
) returns jsonb
language sql stable security definer set search_path = '' as $$
  with page as (
    select r, sequence,
           sum(line_count) over (order by sequence) as lines_so_far,
           row_number() over (order by sequence) as n
      from kvitt.records r
     where integration_id = p_integration and period_due_at = p_due and sequence > p_after
       and not exists (select from kvitt.set_aside a
                        where a.integration_id = r.integration_id
                          and a.due_at = r.period_due_at and a.sequence = r.sequence)
     order by sequence limit p_max_records
  )
  select coalesce(jsonb_agg(kvitt.as_taken(page.r) order by page.sequence), '[]')
  from page
  where lines_so_far <= p_max_lines or n = 1
$$;

-- What read_batch would give, if the period were collected now: what it took already, then what it
-- would take. Earlier periods that are not frozen take what is theirs before it. Changes nothing.
create function kvitt.preview_batch(
  p_integration text, p_due timestamptz, p_after bigint, p_limit integer
) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  it kvitt.periods := kvitt.period_to_work_on(p_integration, p_due);
  since timestamptz := kvitt.left_to_earlier(it);
  last_number bigint;
begin
  select last_voucher_number into last_number from kvitt.integrations where id = p_integration;
  return (
    with untaken as (
      select r, it.record_count + row_number() over (order by r.approved_at, r.id) as place
        from kvitt.records r
       where it.frozen_at is null and r.integration_id = p_integration
         and r.period_due_at is null and r.approved_at < p_due and r.approved_at >= since
    ), batch as (
      select r, r.sequence as place, r.voucher_number as number from kvitt.records r
       where r.integration_id = p_integration and r.period_due_at = p_due
         and r.sequence > p_after
      union all
      select r, place, last_number + place - it.record_count from untaken where place > p_after
      order by place limit p_limit
    )
    select coalesce(jsonb_agg(kvitt.as_taken(b.r) || jsonb_build_object(
             'sequence', b.place, 'voucher_number', b.number) order by b.place), '[]')
      from batch b);
end $$;

-- ---------------------------------------------------------------------------------------------
-- Chunks

-- Written before the call. Answers the chunk; its state tells whether it may be sent: 'intended'.
-- Answers null for a posting that would have nothing to post.
-- p_totals is what the call will carry, counted from the call. A chunk of lines begins where the
-- one before it ended, so that no voucher is left out and none is in two; those that were set aside
-- may lie within it, and are not sent.
create function kvitt.intend_chunk(
  p_integration text, p_due timestamptz, p_fence bigint, p_kind kvitt.chunk_kind,
  p_first bigint, p_last bigint, p_totals jsonb, p_settle interval
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
  chunk kvitt.chunks;
  expected bigint;
begin
  it := kvitt.hold(p_integration, p_due, p_fence);
  update kvitt.periods set first_sent_at = now()
   where integration_id = p_integration and due_at = p_due and backfill and first_sent_at is null;
  if p_kind = 'post' and kvitt.unfinished(it) = 0 and kvitt.sent(it) ->> 'vouchers' = '0' then
    return null; -- all of it was set aside
  end if;
  select * into chunk from kvitt.chunks
   where integration_id = p_integration and due_at = p_due and kind = p_kind
     and first_sequence is not distinct from p_first;
  if found then
    return kvitt.intend_again(it, chunk, p_last, p_totals);
  end if;

  if it.frozen_at is null then
    raise exception 'period %: its batch is not frozen yet', it.key using errcode = 'KV005';
  end if;
  expected := kvitt.next_voucher(it);
  if p_kind = 'lines' and (p_first <> expected or p_last > it.record_count) then
    raise exception 'period %: a chunk of % to % does not follow; the next voucher is %',
      it.key, p_first, p_last, expected using errcode = 'KV005';
  elsif p_kind = 'post' and kvitt.unfinished(it) <> 0 then
    raise exception 'period %: it is not posted before each line is confirmed', it.key
      using errcode = 'KV005';
  end if;
  update kvitt.periods set state = 'exporting'
   where integration_id = p_integration and due_at = p_due and state = 'collected';
  insert into kvitt.chunks
    (integration_id, due_at, number, kind, first_sequence, last_sequence, fence, totals, settle)
  select p_integration, p_due, coalesce(max(number), 0) + 1, p_kind, p_first, p_last, p_fence,
         p_totals, p_settle
    from kvitt.chunks where integration_id = p_integration and due_at = p_due
  returning * into chunk;
  return to_jsonb(chunk);
end $$;

-- The first voucher that no chunk has and that was not set aside.
create function kvitt.next_voucher(p_period kvitt.periods) returns bigint
language sql stable set search_path = '' as $$
  with sent as (
    select coalesce(max(last_sequence), 0) as last from kvitt.chunks
     where (integration_id, due_at) = (p_period.integration_id, p_period.due_at)
  ), aside as (
    select sequence from kvitt.set_aside, sent
     where (integration_id, due_at) = (p_period.integration_id, p_period.due_at)
       and sequence > sent.last
  )
  select min(next) from sent,
    generate_series(sent.last + 1, sent.last + 1 + (select count(*) from aside)) as next
   where next not in (select sequence from aside)
$$;

-- How many vouchers are neither in a confirmed chunk nor set aside; or set aside, but not taken
-- back yet.
create function kvitt.unfinished(p_period kvitt.periods) returns bigint
language sql stable set search_path = '' as $$
  with sent as (
    select first_sequence, last_sequence from kvitt.chunks
     where (integration_id, due_at) = (p_period.integration_id, p_period.due_at)
       and state = 'confirmed' and kind = 'lines'
  ), aside as (
    select sequence, chunk is not null and withdrawn_at is null as to_be_withdrawn
      from kvitt.set_aside
     where (integration_id, due_at) = (p_period.integration_id, p_period.due_at)
  )
  select p_period.record_count
    - coalesce((select sum(last_sequence - first_sequence + 1) from sent), 0)::bigint
    - (select count(*) from aside where not exists (
         select from sent where aside.sequence between first_sequence and last_sequence))
    + (select count(*) from aside where to_be_withdrawn)
$$;

-- Intended once already. Again only where it is known not to have arrived, or was refused. It may end
-- earlier than before: whoever is to blame is looked for so. The rest is a chunk of its own then.
create function kvitt.intend_again(
  p_period kvitt.periods, p_chunk kvitt.chunks, p_last bigint, p_totals jsonb
) returns jsonb
language plpgsql set search_path = '' as $$
declare
  chunk kvitt.chunks := p_chunk;
begin
  if chunk.last_sequence is distinct from p_last and not (
    chunk.state in ('unsent', 'refused')
    and p_last between chunk.first_sequence and chunk.last_sequence) then
    raise exception 'period %: chunk % ends at voucher %, not %',
      p_period.key, chunk.number, chunk.last_sequence, p_last using errcode = 'KV005';
  end if;
  if chunk.kind = 'post' and chunk.state <> 'confirmed' and kvitt.unfinished(p_period) <> 0 then
    raise exception 'period %: it is not posted before each line is confirmed', p_period.key
      using errcode = 'KV005';
  end if;
  if chunk.last_sequence > p_last then
    perform kvitt.cut_off(p_period, chunk, p_last + 1);
  end if;
  if chunk.state in ('unsent', 'refused') then
    update kvitt.chunks set
      state = 'intended', last_sequence = p_last, fence = p_period.fence, sends = sends + 1,
      totals = p_totals, intended_at = now(), decided_at = null, not_before = null, absences = 0
    where integration_id = chunk.integration_id and due_at = chunk.due_at
      and number = chunk.number
    returning * into chunk;
  end if;
  return to_jsonb(chunk);
end $$;

-- Makes a chunk of what another one ends before. It was never sent by itself; where the whole had been
-- sent before it was refused, it is read back before it is sent (absences).
create function kvitt.cut_off(p_period kvitt.periods, p_chunk kvitt.chunks, p_first bigint)
returns void
language sql set search_path = '' as $$
  insert into kvitt.chunks
    (integration_id, due_at, number, kind, first_sequence, last_sequence, state, fence, sends,
     absences, settle, decided_at, reference, detail)
  select p_chunk.integration_id, p_chunk.due_at, max(number) + 1, 'lines', p_first,
         p_chunk.last_sequence, 'unsent', p_period.fence, 0,
         greatest(p_chunk.absences, least(p_chunk.sends - 1, 1)), p_chunk.settle, now(),
         p_chunk.reference, format('cut off chunk %s', p_chunk.number)
    from kvitt.chunks
   where integration_id = p_chunk.integration_id and due_at = p_chunk.due_at
$$;

-- After the call, or after reading back. p_outcome:
--   confirmed, refused, unsent   as the states
--   unbegun                      the call was not made at all: unsent, and as if never intended
--   uncertain                    no reply: nothing is known before the settle time is over, nor
--                                before p_gap is, for which the vendor asked to be left alone.
--                                p_reference keeps whom it refused, if it may have taken the rest
--   absent                       read back, and not there. Before not_before that says nothing;
--                                after it, p_absences such readings, p_gap apart, make it unsent
create function kvitt.settle_chunk(
  p_integration text, p_due timestamptz, p_fence bigint, p_number integer, p_outcome text,
  p_reference jsonb default null, p_detail text default null,
  p_absences integer default 1, p_gap interval default '0'
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  chunk kvitt.chunks;
  absent boolean := p_outcome = 'absent';
  unbegun boolean := p_outcome = 'unbegun';
  outcome text := case when unbegun then 'unsent' else p_outcome end;
begin
  perform kvitt.hold(p_integration, p_due, p_fence);
  select * into chunk from kvitt.chunks
   where integration_id = p_integration and due_at = p_due and number = p_number for update;
  if not found then
    raise exception '% at %: there is no chunk %', p_integration, p_due, p_number
      using errcode = 'KV004';
  elsif not absent and chunk.state = outcome::kvitt.chunk_state then
    return to_jsonb(chunk); -- said twice
  end if;

  if absent and chunk.state = 'uncertain' and now() >= chunk.not_before then
    chunk.absences := chunk.absences + 1;
    chunk.not_before := now() + p_gap;
  end if;
  update kvitt.chunks set
    state = case
      when absent and chunk.absences >= p_absences then 'unsent'
      when absent then 'uncertain'
      else outcome end::kvitt.chunk_state,
    sends = sends - unbegun::int,
    not_before = case when p_outcome = 'uncertain' then now() + greatest(settle, p_gap)
                      else chunk.not_before end,
    absences = chunk.absences,
    decided_at = now(),
    reference = coalesce(p_reference, reference),
    detail = coalesce(p_detail, detail)
  where integration_id = p_integration and due_at = p_due and number = p_number
  returning * into chunk;
  return to_jsonb(chunk);
end $$;

-- The chunks of a period after p_after in order, at most p_limit: a period may have many.
create function kvitt.read_chunks(
  p_integration text, p_due timestamptz, p_after integer, p_limit integer
) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(to_jsonb(c) order by c.number), '[]') from (
    select * from kvitt.chunks
     where integration_id = p_integration and due_at = p_due and number > p_after
     order by number limit p_limit) c
$$;

-- ---------------------------------------------------------------------------------------------
-- Ends

-- Sets vouchers aside: p_vouchers is [{sequence, reason}]. Answers how many were not set aside before.
-- Of those that the books hold, or may hold in part, the call is kept where the vendor can take them
-- back (p_withdraws). More than p_most in a period is a matter of set-up, not of vouchers: KV006.
create function kvitt.set_aside(
  p_integration text, p_due timestamptz, p_fence bigint, p_vouchers jsonb, p_most integer,
  p_withdraws boolean default false
) returns integer
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
  fresh integer;
  many bigint;
begin
  it := kvitt.hold(p_integration, p_due, p_fence);
  if exists (select from kvitt.chunks c, jsonb_array_elements(p_vouchers) v
              where (c.integration_id, c.due_at) = (p_integration, p_due)
                and (v ->> 'sequence')::bigint between c.first_sequence and c.last_sequence
                and c.state in ('intended', 'uncertain'))
     or exists (select from kvitt.chunks c where (c.integration_id, c.due_at)
                  = (p_integration, p_due) and c.kind = 'post'
                  and c.state not in ('refused', 'unsent')) then
    raise exception 'period %: what may be in the books is not set aside', it.key
      using errcode = 'KV005';
  end if;
  insert into kvitt.set_aside
    (integration_id, due_at, sequence, record_id, reason, totals, chunk, carried)
  select p_integration, p_due, r.sequence, r.id, v ->> 'reason',
         kvitt.totals_of_vouchers(it, r.sequence, r.sequence), c.number,
         coalesce(c.state = 'confirmed', false)
    from jsonb_array_elements(p_vouchers) v
    join kvitt.records r on (r.integration_id, r.period_due_at, r.sequence)
                          = (p_integration, p_due, (v ->> 'sequence')::bigint)
    left join kvitt.chunks c on (c.integration_id, c.due_at) = (p_integration, p_due)
          and r.sequence between c.first_sequence and c.last_sequence
          and (c.state = 'confirmed' or p_withdraws and kvitt.may_be_booked(c))
  on conflict do nothing;
  get diagnostics fresh = row_count;
  select count(*) into many from kvitt.set_aside
   where (integration_id, due_at) = (p_integration, p_due);
  if many > p_most then
    raise exception 'period %: % vouchers would be set aside, more than the % that it may',
      it.key, many, p_most using errcode = 'KV006';
  end if;
  return fresh;
end $$;

-- What the books hold of it, and is not to be there.
create function kvitt.to_withdraw(p_integration text, p_due timestamptz) returns jsonb
language sql stable security definer set search_path = '' as $$
  select coalesce(jsonb_agg(sequence order by sequence), '[]') from kvitt.set_aside
   where integration_id = p_integration and due_at = p_due and chunk is not null
     and withdrawn_at is null
$$;

create function kvitt.withdrawn(
  p_integration text, p_due timestamptz, p_fence bigint, p_sequences bigint[]
) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform kvitt.hold(p_integration, p_due, p_fence);
  update kvitt.set_aside set withdrawn_at = now()
   where integration_id = p_integration and due_at = p_due and sequence = any (p_sequences)
     and chunk is not null and withdrawn_at is null;
end $$;

-- Each voucher is in a confirmed chunk, and posted where the vendor posts; or set aside. Answers how
-- many are in the books.
create function kvitt.finish_export(p_integration text, p_due timestamptz, p_fence bigint)
returns bigint
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
  left_over bigint;
  booked bigint;
begin
  it := kvitt.hold(p_integration, p_due, p_fence);
  booked := kvitt.sent(it) ->> 'vouchers';
  if it.state in ('exported', 'verified') then
    return booked;
  end if;
  left_over := kvitt.unfinished(it);
  -- A chunk that is not in the books is finished when all of it was set aside; a posting that did
  -- not happen, when nothing is left.
  if it.frozen_at is null or left_over <> 0 or exists (
    select from kvitt.chunks where integration_id = p_integration and due_at = p_due
      and state <> 'confirmed'
      and not (state in ('refused', 'unsent') and (kind = 'lines' or booked = 0))) then
    raise exception 'period %: % of % vouchers are not confirmed', it.key, left_over,
      it.record_count using errcode = 'KV005';
  end if;
  if it.state <> 'collected' then -- an empty one has nothing to export, unless it failed before
    update kvitt.periods set state = 'exported'
     where integration_id = p_integration and due_at = p_due;
  end if;
  return booked;
end $$;

-- What a receipt compares: {vouchers, lines, original: {currency: debit}, booked, checksum}. Debit
-- sums, since a batch of balanced vouchers sums to nothing.
create function kvitt.totals(
  p_vouchers bigint, p_lines bigint, p_original jsonb, p_booked numeric, p_checksum numeric
) returns jsonb
language sql immutable set search_path = '' as $$
  select jsonb_build_object('vouchers', p_vouchers, 'lines', p_lines,
    'original', coalesce((select jsonb_object_agg(key, trim_scale(value::numeric)::text)
                            from jsonb_each_text(p_original) where value::numeric <> 0), '{}'),
    'booked', trim_scale(coalesce(p_booked, 0))::text,
    'checksum', mod(mod(coalesce(p_checksum, 0), 2 ^ 60::numeric) + 2 ^ 60::numeric,
                    2 ^ 60::numeric)::bigint)
$$;

-- A voucher's checksum, below 2^60; a batch's is the sum of them, so that the order does not matter.
-- As in the domain's money.py, which the tests hold against this.
create function kvitt.checksum_of(p_sequence bigint, p_lines bigint, p_booked numeric)
returns bigint
language sql immutable set search_path = '' as $$
  select ('x' || left(encode(sha256(convert_to(
    format('%s:%s:%s', p_sequence, p_lines, trim_scale(p_booked)), 'UTF8')), 'hex'), 15)
  )::bit(60)::bigint
$$;

create function kvitt.plus(p_one jsonb, p_other jsonb, p_sign integer default 1) returns jsonb
language sql immutable set search_path = '' as $$
  select kvitt.totals(
    (p_one ->> 'vouchers')::bigint + p_sign * (p_other ->> 'vouchers')::bigint,
    (p_one ->> 'lines')::bigint + p_sign * (p_other ->> 'lines')::bigint,
    (select jsonb_object_agg(currency, debit::text) from (
       select key as currency, sum(sign * value::numeric) as debit from (
         select key, value, 1 as sign from jsonb_each_text(p_one -> 'original')
         union all
         select key, value, p_sign from jsonb_each_text(p_other -> 'original')) both_of_them
        group by key) per_currency),
    (p_one ->> 'booked')::numeric + p_sign * (p_other ->> 'booked')::numeric,
    (p_one ->> 'checksum')::numeric + p_sign * (p_other ->> 'checksum')::numeric)
$$;

-- Of some vouchers of a batch, from the records themselves.
create function kvitt.totals_of_vouchers(p_period kvitt.periods, p_first bigint, p_last bigint)
returns jsonb
language sql stable set search_path = '' as $$
  with vouchers as (
    select r.sequence, r.currency, count(*) as lines,
           sum(l.amount) filter (where l.amount > 0) as debit,
           sum(l.book_amount) filter (where l.book_amount > 0) as booked
      from kvitt.records r join kvitt.record_lines l
        on (l.integration_id, l.record_id) = (r.integration_id, r.id)
     where r.integration_id = p_period.integration_id and r.period_due_at = p_period.due_at
       and r.sequence between p_first and p_last
     group by r.sequence, r.currency
  )
  select kvitt.totals(count(*), coalesce(sum(lines), 0)::bigint,
    (select jsonb_object_agg(currency, debit::text)
       from (select currency, sum(debit) as debit from vouchers group by currency) per_currency),
    sum(booked), sum(kvitt.checksum_of(sequence, lines, booked)))
  from vouchers
$$;

-- What the confirmed calls carried, without what was taken back of it.
create function kvitt.sent(p_period kvitt.periods) returns jsonb
language sql stable set search_path = '' as $$
  with carried as (
    select totals, 1 as sign from kvitt.chunks
     where integration_id = p_period.integration_id and due_at = p_period.due_at
       and state = 'confirmed' and kind = 'lines'
    union all
    select totals, -1 from kvitt.set_aside
     where integration_id = p_period.integration_id and due_at = p_period.due_at and carried
  )
  select kvitt.totals(
    coalesce(sum(sign * (totals ->> 'vouchers')::bigint), 0)::bigint,
    coalesce(sum(sign * (totals ->> 'lines')::bigint), 0)::bigint,
    (select jsonb_object_agg(currency, debit::text) from (
       select e.key as currency, sum(sign * e.value::numeric) as debit
         from carried, jsonb_each_text(totals -> 'original') e group by e.key) per_currency),
    sum(sign * (totals ->> 'booked')::numeric),
    sum(sign * (totals ->> 'checksum')::numeric))
  from carried
$$;

create function kvitt.left_out(p_period kvitt.periods) returns jsonb
language sql stable set search_path = '' as $$
  select kvitt.totals(
    coalesce(sum((totals ->> 'vouchers')::bigint), 0)::bigint,
    coalesce(sum((totals ->> 'lines')::bigint), 0)::bigint,
    (select jsonb_object_agg(currency, debit::text) from (
       select e.key as currency, sum(e.value::numeric) as debit
         from kvitt.set_aside a, jsonb_each_text(a.totals -> 'original') e
        where (a.integration_id, a.due_at) = (p_period.integration_id, p_period.due_at)
        group by e.key) per_currency),
    sum((totals ->> 'booked')::numeric), sum((totals ->> 'checksum')::numeric))
  from kvitt.set_aside
 where (integration_id, due_at) = (p_period.integration_id, p_period.due_at)
$$;

-- The books do not show what was sent. Less than was sent may still be on its way from one of the
-- vendor's tables to another: within the settle time, or in a single reading after it, that is
-- uncertain and not wrong. Two readings that are p_gap apart are.
create function kvitt.not_verified(
  p_period kvitt.periods, p_expected jsonb, p_sent jsonb, p_shown jsonb, p_gap interval
) returns void
language plpgsql set search_path = '' as $$
declare
  short boolean := p_expected = p_sent
    and (p_shown ->> 'lines')::bigint < (p_sent ->> 'lines')::bigint;
  settle interval;
  until timestamptz;
  since timestamptz := p_period.short_since;
begin
  select max(c.settle), max(c.decided_at + c.settle) into settle, until from kvitt.chunks c
   where (c.integration_id, c.due_at) = (p_period.integration_id, p_period.due_at);
  update kvitt.periods set
    state = case
      when short and (now() < until or since is null or now() < since + p_gap)
      then 'uncertain' else 'failed' end::kvitt.period_state,
    not_before = case
      when now() < until then least(now() + settle / 5, until)
      else coalesce(since, now()) + p_gap end,
    short_since = case when short and now() >= until then coalesce(since, now()) end,
    reason = format('the books do not show what was sent. To be sent: %s. Sent: %s. Read back: %s.',
      kvitt.in_words(p_expected), kvitt.in_words(p_sent), kvitt.in_words(p_shown))
  where integration_id = p_period.integration_id and due_at = p_period.due_at;
end $$;

create function kvitt.in_words(p_totals jsonb) returns text
language sql immutable set search_path = '' as $$
  select format('%s vouchers, %s lines, %s booked, checksum %s', p_totals ->> 'vouchers',
                p_totals ->> 'lines', p_totals ->> 'booked',
                to_hex((p_totals ->> 'checksum')::bigint))
$$;

-- The period ends here, one way or the other: verified with a receipt where what the books show
-- is what was sent, and that is what was taken and not set aside; else not_verified decides.
-- p_read_back is as kvitt.totals says, and {staged}: the lines that are not final yet. A vendor that
-- shows no original currencies leaves those out. p_gap is how far apart two readings have to be that
-- say together that something is not there.
create function kvitt.settle_period(
  p_integration text, p_due timestamptz, p_fence bigint, p_read_back jsonb, p_requests jsonb,
  p_gap interval default '0'
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
  expected jsonb;
  sent jsonb;
  shown jsonb := kvitt.totals((p_read_back ->> 'vouchers')::bigint,
    (p_read_back ->> 'lines')::bigint, p_read_back -> 'original',
    (p_read_back ->> 'booked')::numeric, (p_read_back ->> 'checksum')::numeric);
begin
  select * into it from kvitt.periods where integration_id = p_integration and due_at = p_due;
  if it.state = 'verified' and it.fence = p_fence then
    return it.receipt; -- said twice
  end if;
  -- An attempt that only verifies (its export was done by an earlier one) comes from exporting.
  perform kvitt.finish_export(p_integration, p_due, p_fence);
  it := kvitt.hold(p_integration, p_due, p_fence);
  update kvitt.attempts set requests = p_requests where id = it.holder;
  expected := kvitt.plus(it.taken, kvitt.left_out(it), -1);
  sent := kvitt.sent(it);
  if not p_read_back ? 'original' then
    shown := shown || jsonb_build_object('original', sent -> 'original');
  end if;
  if expected <> sent or sent <> shown then
    perform kvitt.not_verified(it, expected, sent, shown, p_gap);
    return null;
  end if;
  update kvitt.periods set
    state = 'verified', settled_at = clock_timestamp(), reason = null,
    receipt = kvitt.receipt(it, sent, p_read_back, clock_timestamp())
  where integration_id = p_integration and due_at = p_due
  returning * into it;
  return it.receipt;
end $$;

create function kvitt.seconds(p_length interval) returns numeric
language sql immutable set search_path = '' as $$
  select round(extract(epoch from p_length)::numeric, 3)
$$;

create function kvitt.receipt(
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
                        'kind', kind, 'boot_ms', boot_ms, 'reply_ms', reply_ms)
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

-- A reply is missing: the period waits for the first time at which a look can decide something.
create function kvitt.suspend_period(
  p_integration text, p_due timestamptz, p_fence bigint, p_reason text
) returns timestamptz
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
begin
  it := kvitt.hold(p_integration, p_due, p_fence);
  update kvitt.periods set state = 'uncertain', reason = p_reason, not_before = coalesce(
    (select min(not_before) from kvitt.chunks
      where integration_id = p_integration and due_at = p_due and state = 'uncertain'), now())
  where integration_id = p_integration and due_at = p_due
  returning * into it;
  return it.not_before;
end $$;

-- Permanent: a person must mend something. Trying again before that changes nothing.
create function kvitt.fail_period(
  p_integration text, p_due timestamptz, p_fence bigint, p_reason text
) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform kvitt.hold(p_integration, p_due, p_fence);
  update kvitt.periods set state = 'failed', reason = p_reason
   where integration_id = p_integration and due_at = p_due and state <> 'failed';
end $$;

-- The last word of an attempt; gives the lease back, if it still has it.
create function kvitt.close_attempt(
  p_attempt uuid, p_outcome kvitt.attempt_outcome, p_detail text, p_requests jsonb
) returns void
language plpgsql security definer set search_path = '' as $$
begin
  update kvitt.attempts set
    ended_at = clock_timestamp(), outcome = p_outcome, detail = p_detail, requests = p_requests
  where id = p_attempt and outcome is null;
  update kvitt.periods set holder = null, leased_until = null where holder = p_attempt;
end $$;

-- ---------------------------------------------------------------------------------------------
-- For people

-- Leaves a period out, for good, with a reason. Answers how many vouchers it had taken, how many of
-- them are in the books, and how many more may be there (perhaps): whoever approves the rest anew has
-- to look for those first. A period of which a call may still be in the books is not skipped: wait
-- until that is known. Nor is one that is not due yet: a changed schedule takes those out, and the
-- calendar would have a gap up to this one.
create function kvitt.skip_period(
  p_integration text, p_due timestamptz, p_who text, p_reason text
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
  booked bigint;
  perhaps bigint;
begin
  if coalesce(trim(p_reason), '') = '' then
    raise exception 'a period is not skipped without a reason' using errcode = 'KV003';
  end if;
  perform from kvitt.integrations where id = p_integration for update;
  select * into it from kvitt.periods
   where integration_id = p_integration and due_at = p_due for update;
  if not found then
    raise exception '% has no period that is due at %', p_integration, p_due
      using errcode = 'KV004';
  elsif it.due_at > now() then
    raise exception 'period %: it is not due yet, and only a period that came due is skipped. Skip '
      'it then; or change the schedule, which takes out what is not due; or switch the integration '
      'off until then', it.key using errcode = 'KV005';
  elsif it.leased_until > now() then
    raise exception 'period %: a run works on it, with a lease to %', it.key, it.leased_until
      using errcode = 'KV005';
  elsif exists (select from kvitt.chunks where integration_id = p_integration and due_at = p_due
                  and state in ('intended', 'uncertain')) then
    raise exception 'period %: what was sent may still be in the books; let it run until that is '
      'known, then skip it', it.key using errcode = 'KV005';
  end if;
  booked := kvitt.sent(it) ->> 'vouchers';
  select coalesce(sum(c.last_sequence - c.first_sequence + 1), 0) into perhaps
    from kvitt.chunks c
   where c.integration_id = p_integration and c.due_at = p_due and c.kind = 'lines'
     and c.state <> 'confirmed' and kvitt.may_be_booked(c);
  update kvitt.periods set state = 'skipped', reason = p_reason, holder = null, leased_until = null
   where integration_id = p_integration and due_at = p_due;
  insert into kvitt.decisions (integration_id, due_at, decision, who, reason)
  values (p_integration, p_due, 'skip', p_who, p_reason);
  return jsonb_build_object('key', it.key, 'taken', it.record_count, 'booked', booked,
                            'perhaps', perhaps);
end $$;

-- Lets a failed period go on: somebody has mended what its reason says. Safe in any case, since what
-- is in the books already is looked for there before anything is sent. The rest goes with the mapping
-- of the day, unless it is not known of a call whether it is in the books.
create function kvitt.mend_period(
  p_integration text, p_due timestamptz, p_who text, p_reason text
) returns text
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.periods;
  open boolean;
begin
  if coalesce(trim(p_reason), '') = '' then
    raise exception 'say what was mended' using errcode = 'KV003';
  end if;
  perform from kvitt.integrations where id = p_integration for update;
  select * into it from kvitt.periods
   where integration_id = p_integration and due_at = p_due for update;
  if not found then
    raise exception '% has no period that is due at %', p_integration, p_due
      using errcode = 'KV004';
  elsif it.state <> 'failed' then
    raise exception 'period % is %: only a failed one is mended', it.key, it.state
      using errcode = 'KV005';
  elsif it.leased_until > now() then
    raise exception 'period %: a run works on it, with a lease to %', it.key, it.leased_until
      using errcode = 'KV005';
  end if;
  open := exists (select from kvitt.chunks where integration_id = p_integration
                    and due_at = p_due and state in ('intended', 'uncertain'));
  update kvitt.periods set
    state = case when frozen_at is null then 'collecting' else 'exporting' end::kvitt.period_state,
    reason = null, short_since = null,
    mapping = case when open then mapping end,
    time_zone = case when open then time_zone end
  where integration_id = p_integration and due_at = p_due;
  insert into kvitt.decisions (integration_id, due_at, decision, who, reason)
  values (p_integration, p_due, 'mend', p_who, p_reason);
  return it.key;
end $$;

-- Lets a record that was set aside go again, in the next period. Once; the copy may be set aside, and
-- mended, in its turn. One that was sent, and that the vendor refused later by itself, is another
-- matter: see say_deleted.
create function kvitt.mend_record(p_integration text, p_record text, p_who text, p_reason text)
returns text
language plpgsql security definer set search_path = '' as $$
declare
  aside kvitt.set_aside;
begin
  if coalesce(trim(p_reason), '') = '' then
    raise exception 'say what was mended' using errcode = 'KV003';
  end if;
  select * into aside from kvitt.set_aside
   where integration_id = p_integration and record_id = p_record for update;
  if not found then
    perform kvitt.demand_not_sent(p_integration, p_record);
    raise exception '%: record % was not set aside', p_integration, p_record
      using errcode = 'KV004';
  elsif aside.mended_as is not null then
    return aside.mended_as; -- said twice
  end if;
  perform from kvitt.periods where integration_id = p_integration and due_at = aside.due_at
    and state in ('verified', 'skipped');
  if not found then
    raise exception '%: the period that set record % aside is not finished', p_integration, p_record
      using errcode = 'KV005';
  end if;
  update kvitt.set_aside set mended_as = kvitt.approve_again(p_integration, p_record)
   where integration_id = p_integration and due_at = aside.due_at and sequence = aside.sequence
  returning * into aside;
  insert into kvitt.decisions (integration_id, due_at, decision, record_id, who, reason)
  values (p_integration, aside.due_at, 'mend record', p_record, p_who, p_reason);
  return aside.mended_as;
end $$;

-- Adds a copy of a record, approved now, since a record is taken by one period only. Answers its id:
-- that of the record with the next ~number that is free, cut so that it fits.
create function kvitt.approve_again(p_integration text, p_record text) returns text
language plpgsql set search_path = '' as $$
declare
  copy kvitt.records;
  copied kvitt.record_lines[];
  -- A longer number than we give is part of the app's own name.
  stem text := regexp_replace(p_record, '~[1-9]\d{0,8}$', '');
  number bigint := coalesce(substring(p_record from '~([1-9]\d{0,8})$')::bigint, 1);
begin
  select * into copy from kvitt.records where integration_id = p_integration and id = p_record;
  copy.approved_at := now();
  select array_agg(l order by l.number) into copied
    from kvitt.record_lines l where l.integration_id = p_integration and l.record_id = p_record;
  copy.digest := kvitt.digest_of(copy, copied);
  loop
    number := number + 1;
    copy.id := left(stem, 99 - length(number::text)) || '~' || number;
    insert into kvitt.records
      (integration_id, id, kind, approved_at, voucher_date, currency, text, line_count, digest)
    values (p_integration, copy.id, copy.kind, copy.approved_at, copy.voucher_date, copy.currency,
            copy.text, copy.line_count, copy.digest)
    on conflict (integration_id, id) do nothing;
    exit when found;
  end loop;
  insert into kvitt.record_lines
  select l.integration_id, copy.id, l.number, l.account, l.party, l.amount, l.book_amount, l.tax,
         l.dimensions, l.text, l.approved_amount, l.approved_book_amount
    from unnest(copied) l;
  return copy.id;
end $$;

-- ---------------------------------------------------------------------------------------------
-- For watchers

-- The integrations for which a run would find something to do now: a period is due and unfinished,
-- nobody holds a lease, and an uncertain one's time has come.
create function kvitt.integrations_with_work()
returns table (integration_id text, due_at timestamptz, state kvitt.period_state, fence bigint,
               late_seconds numeric, backfill boolean)
language sql stable security definer set search_path = '' as $$
  select oldest.integration_id, oldest.due_at, oldest.state, oldest.fence,
         kvitt.seconds(now() - oldest.due_at), oldest.backfill
    from (select distinct on (p.integration_id) p.*
            from kvitt.periods p
           where p.state not in ('verified', 'skipped', 'failed') and p.due_at <= now()
             and not (p.backfill and p.state = 'due' and p.not_before > now())
           order by p.integration_id, p.backfill, p.due_at) oldest
    join kvitt.integrations i on i.id = oldest.integration_id and i.enabled
   -- The later ones wait for an uncertain one, as they do in claim_period.
   where coalesce(oldest.not_before <= now(), true)
     and not exists (select from kvitt.periods l
                      where l.integration_id = oldest.integration_id and l.leased_until > now())
   order by oldest.integration_id
$$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.claim_period(text, uuid, interval, text, timestamptz, timestamptz, text, text, timestamptz),
  kvitt.renew_lease(text, timestamptz, bigint, interval),
  kvitt.record_cold_start(uuid, text, timestamptz, uuid, text, kvitt.cold_start_kind, numeric,
                          numeric, text),
  kvitt.collect_page(text, timestamptz, bigint, integer),
  kvitt.read_batch(text, timestamptz, bigint, integer, integer),
  kvitt.preview_batch(text, timestamptz, bigint, integer),
  kvitt.intend_chunk(text, timestamptz, bigint, kvitt.chunk_kind, bigint, bigint, jsonb, interval),
  kvitt.settle_chunk(text, timestamptz, bigint, integer, text, jsonb, text, integer, interval),
  kvitt.read_chunks(text, timestamptz, integer, integer),
  kvitt.set_aside(text, timestamptz, bigint, jsonb, integer, boolean),
  kvitt.to_withdraw(text, timestamptz),
  kvitt.withdrawn(text, timestamptz, bigint, bigint[]),
  kvitt.finish_export(text, timestamptz, bigint),
  kvitt.settle_period(text, timestamptz, bigint, jsonb, jsonb, interval),
  kvitt.suspend_period(text, timestamptz, bigint, text),
  kvitt.fail_period(text, timestamptz, bigint, text),
  kvitt.close_attempt(uuid, kvitt.attempt_outcome, text, jsonb),
  kvitt.skip_period(text, timestamptz, text, text),
  kvitt.mend_period(text, timestamptz, text, text),
  kvitt.mend_record(text, text, text, text),
  kvitt.integrations_with_work()
to service_role;
