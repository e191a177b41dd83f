-- A call that was not made says nothing of those that were made before it. settle_chunk is as before,
-- but for this: where a chunk had been sent, and a part of it may be there, an intent that is taken back
-- leaves an absence, so that whoever comes next reads before sending, as after kvitt.cut_off. Without
-- it the whole would have gone again.
create or replace function kvitt.settle_chunk(
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
    absences = case when unbegun then greatest(chunk.absences, least(chunk.sends - 1, 1))
                    else chunk.absences end,
    decided_at = now(),
    reference = coalesce(p_reference, reference),
    detail = coalesce(p_detail, detail)
  where integration_id = p_integration and due_at = p_due and number = p_number
  returning * into chunk;
  return to_jsonb(chunk);
end $$;
