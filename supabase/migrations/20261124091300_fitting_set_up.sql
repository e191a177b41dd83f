-- Whether an integration's accounting system is set up so that what is sent can be read back. Looked
-- at once, before the first export, and anew when the integration leads elsewhere.

alter table kvitt.integrations add column fitted_at timestamptz;
comment on column kvitt.integrations.fitted_at is
  'When the vendor''s set-up was found to fit, or a person accepted it as it is; null: to be looked at.';

-- Whoever changes it, and however: what was looked at is not what it leads to now.
create function kvitt.unfit() returns trigger
language plpgsql set search_path = '' as $$
begin
  new.fitted_at := null;
  return new;
end $$;

create trigger unfit before update on kvitt.integrations
  for each row when ((old.vendor, old.connection, old.book_currency)
                     is distinct from (new.vendor, new.connection, new.book_currency))
  execute function kvitt.unfit();

-- The set-up fits. Says nothing where the integration was changed since it was looked at: the next
-- period looks again.
create function kvitt.mark_fitted(
  p_integration text, p_due timestamptz, p_fence bigint,
  p_vendor text, p_connection text, p_book_currency text
) returns void
language plpgsql security definer set search_path = '' as $$
begin
  perform kvitt.hold(p_integration, p_due, p_fence);
  update kvitt.integrations set fitted_at = coalesce(fitted_at, now())
   where id = p_integration
     and (vendor, connection, book_currency) = (p_vendor, p_connection, p_book_currency);
end $$;

alter table kvitt.decisions drop constraint decisions_decision_check;
alter table kvitt.decisions add constraint decisions_decision_check
  check (decision in ('skip', 'mend', 'mend record', 'accept set-up'));

-- A person takes the set-up as it is, and lets the period go on that failed for it.
create function kvitt.accept_set_up(
  p_integration text, p_due timestamptz, p_who text, p_reason text
) returns text
language plpgsql security definer set search_path = '' as $$
declare
  named text;
begin
  named := kvitt.mend_period(p_integration, p_due, p_who, p_reason);
  update kvitt.decisions set decision = 'accept set-up'
   where id = (select max(id) from kvitt.decisions
                where integration_id = p_integration and due_at = p_due and decision = 'mend');
  update kvitt.integrations set fitted_at = coalesce(fitted_at, now()) where id = p_integration;
  return named;
end $$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.mark_fitted(text, timestamptz, bigint, text, text, text),
  kvitt.accept_set_up(text, timestamptz, text, text)
to service_role;
