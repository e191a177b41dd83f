-- Looking at what a mapping makes of a record: `kvitt mapping try`.

-- One record as read_batch hands it out, with the period that took it: the one that is named, else
-- one that no period has taken, else the one with the latest voucher number. A record that is not
-- taken shows the number that it would get if it were the next. Null where there is none.
create function kvitt.read_record(p_integration text, p_record text default null) returns jsonb
language sql stable security definer set search_path = '' as $$
  select kvitt.as_taken(r) || jsonb_build_object(
           'sequence', coalesce(r.sequence, 1),
           'voucher_number', coalesce(r.voucher_number, i.last_voucher_number + 1),
           'period_due_at', r.period_due_at)
    from kvitt.records r join kvitt.integrations i on i.id = r.integration_id
   where r.integration_id = p_integration and (p_record is null or r.id = p_record)
   order by r.voucher_number desc nulls first limit 1 -- the unique index, read from its end
$$;

revoke execute on function kvitt.read_record(text, text) from public;
grant execute on function kvitt.read_record(text, text) to service_role;
