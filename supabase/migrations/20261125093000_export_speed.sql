-- An export as fast as the vendor takes it: what several calls need written down goes in one.

-- Writes down which calls the vendor confirmed, then which come next: p_confirmed is
-- [{number, reference}], p_intended [{first, last, totals}], both in order. Answers the chunks, in the
-- same order. Each is decided as settle_chunk and intend_chunk would alone, and all of it is written
-- or nothing; so, like them, it is safe to call twice.
create function kvitt.write_chunks(
  p_integration text, p_due timestamptz, p_fence bigint, p_confirmed jsonb, p_intended jsonb,
  p_settle interval
) returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  each jsonb;
  chunks jsonb := '[]';
begin
  perform kvitt.hold(p_integration, p_due, p_fence);
  for each in select value from jsonb_array_elements(p_confirmed) with ordinality order by ordinality
  loop
    chunks := chunks || kvitt.settle_chunk(p_integration, p_due, p_fence,
      (each ->> 'number')::integer, 'confirmed', each -> 'reference');
  end loop;
  for each in select value from jsonb_array_elements(p_intended) with ordinality order by ordinality
  loop
    chunks := chunks || kvitt.intend_chunk(p_integration, p_due, p_fence, 'lines',
      (each ->> 'first')::bigint, (each ->> 'last')::bigint, each -> 'totals', p_settle);
  end loop;
  return chunks;
end $$;

-- The first voucher that no chunk has and that was not set aside. Chunks do not overlap, so that the
-- one that begins last also ends last: it is read from the end of the unique index, however many there
-- are.
create or replace function kvitt.next_voucher(p_period kvitt.periods) returns bigint
language sql stable set search_path = '' as $$
  with sent as (
    select coalesce((
      select last_sequence from kvitt.chunks
       where integration_id = p_period.integration_id and due_at = p_period.due_at
         and first_sequence is not null
       order by first_sequence desc limit 1), 0) as last
  ), aside as (
    select sequence from kvitt.set_aside, sent
     where (integration_id, due_at) = (p_period.integration_id, p_period.due_at)
       and sequence > sent.last
  )
  select min(next) from sent,
    generate_series(sent.last + 1, sent.last + 1 + (select count(*) from aside)) as next
   where next not in (select sequence from aside)
$$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.write_chunks(text, timestamptz, bigint, jsonb, jsonb, interval)
to service_role;
