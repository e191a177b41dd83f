-- The checkpoint: what the schema is, told by itself; a rehearsal that leaves nothing behind; and
-- whether the database may call out. See docs/checkpoint.md.

-- ---------------------------------------------------------------------------------------------
-- The schema, described

-- What is in the schema kvitt, as text by name, so that it can be compared with what the migrations
-- make: {at, versions, tables, guards, functions, row_security, grants, others}. The same on each
-- version of Postgres. `versions` is null where nobody keeps a history; `grants` are service_role's
-- rights, `others` those of everybody else but the owner.
create function kvitt.describe_schema() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  versions jsonb;
begin
  if to_regclass('supabase_migrations.schema_migrations') is not null then
    select jsonb_agg(version order by version) into versions
      from supabase_migrations.schema_migrations;
  end if;
  return jsonb_build_object(
    'at', clock_timestamp(),
    'versions', versions,
    'tables', kvitt.described_tables(),
    'guards', kvitt.described_guards(),
    'functions', kvitt.described_functions(),
    'row_security', kvitt.described_row_security(),
    'grants', (select coalesce(jsonb_object_agg(thing, rights), '{}')
                 from kvitt.described_rights() where who = 'service_role'),
    'others', (select coalesce(jsonb_object_agg(who || ' on ' || thing, rights), '{}')
                 from kvitt.described_rights() where who <> 'service_role'));
end $$;

-- Columns with their types, and the values of the enumerations.
create function kvitt.described_tables() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(name, what), '{}') from (
    select c.relname || '.' || a.attname as name,
           format_type(a.atttypid, a.atttypmod)
           || case when a.attnotnull then ' not null' else '' end
           || case when a.attgenerated <> '' then ' generated ' when a.attidentity <> ''
                   then ' identity ' when d.oid is not null then ' default ' else '' end
           || coalesce(pg_get_expr(d.adbin, d.adrelid), '') as what
      from pg_catalog.pg_class c
      join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
      left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
     where c.relnamespace = 'kvitt'::regnamespace and c.relkind in ('r', 'p', 'v', 'm')
    union all
    select t.typname, string_agg(e.enumlabel, ', ' order by e.enumsortorder)
      from pg_catalog.pg_type t join pg_catalog.pg_enum e on e.enumtypid = t.oid
     where t.typnamespace = 'kvitt'::regnamespace
     group by t.typname) described
$$;

-- Constraints, indexes and triggers: what holds the tables to what they promise.
create function kvitt.described_guards() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(name, what), '{}') from (
    select c.relname || ' constraint ' || k.conname as name,
           pg_get_constraintdef(k.oid) || case when k.convalidated then '' else ' not valid' end as what
      from pg_catalog.pg_constraint k join pg_catalog.pg_class c on c.oid = k.conrelid
     where c.relnamespace = 'kvitt'::regnamespace and k.contype in ('c', 'f', 'p', 'u', 'x')
    union all
    select c.relname || ' index ' || i.relname,
           pg_get_indexdef(x.indexrelid) || case when x.indisvalid then '' else ' not valid' end
      from pg_catalog.pg_index x
      join pg_catalog.pg_class c on c.oid = x.indrelid
      join pg_catalog.pg_class i on i.oid = x.indexrelid
     where c.relnamespace = 'kvitt'::regnamespace
       and not exists (select from pg_catalog.pg_constraint k where k.conindid = x.indexrelid)
    union all
    select c.relname || ' trigger ' || t.tgname,
           pg_get_triggerdef(t.oid) || case t.tgenabled when 'D' then ' disabled' else '' end
      from pg_catalog.pg_trigger t join pg_catalog.pg_class c on c.oid = t.tgrelid
     where c.relnamespace = 'kvitt'::regnamespace and not t.tgisinternal) described
$$;

-- Functions and procedures by signature: as whom they run, with what search_path, and a fingerprint
-- of the body.
create function kvitt.described_functions() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(
           p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
           coalesce(pg_get_function_result(p.oid), 'procedure')
           || case p.provolatile when 'i' then ' immutable' when 's' then ' stable' else '' end
           || case when p.prosecdef then ' security definer' else '' end
           || coalesce(' set ' || array_to_string(p.proconfig, ', '), '')
           || ' body ' || md5(p.prosrc)), '{}')
    from pg_catalog.pg_proc p where p.pronamespace = 'kvitt'::regnamespace
$$;

create function kvitt.described_row_security() returns jsonb
language sql stable set search_path = '' as $$
  select coalesce(jsonb_object_agg(c.relname,
           case when c.relrowsecurity then 'on' else 'off' end || coalesce((
             select ', policy ' || string_agg(p.polname, ', policy ' order by p.polname)
               from pg_catalog.pg_policy p where p.polrelid = c.oid), '')), '{}')
    from pg_catalog.pg_class c
   where c.relnamespace = 'kvitt'::regnamespace and c.relkind in ('r', 'p')
$$;

-- Who may do what with the schema, its tables and its functions, the owner apart. A public role that
-- is a member of service_role may have all of its rights.
create function kvitt.described_rights() returns table (who text, thing text, rights text)
language sql stable set search_path = '' as $$
  with things as (
    select 'schema kvitt' as thing, nspowner as owner,
           coalesce(nspacl, acldefault('n', nspowner)) as acl
      from pg_catalog.pg_namespace where nspname = 'kvitt'
    union all
    select relname, relowner, coalesce(relacl, acldefault('r', relowner))
      from pg_catalog.pg_class
     where relnamespace = 'kvitt'::regnamespace and relkind in ('r', 'p', 'v', 'm')
    union all
    select p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')', p.proowner,
           coalesce(p.proacl, acldefault('f', p.proowner))
      from pg_catalog.pg_proc p where p.pronamespace = 'kvitt'::regnamespace
  )
  select coalesce(r.rolname, 'everybody'), t.thing,
         string_agg(g.privilege_type, ', ' order by g.privilege_type)
    from things t, aclexplode(t.acl) g left join pg_catalog.pg_roles r on r.oid = g.grantee
   where g.grantee <> t.owner
   group by 1, 2
  union all
  select r.rolname, 'all of it', 'the role service_role'
    from pg_catalog.pg_roles r, pg_catalog.pg_roles s
   where r.rolname in ('anon', 'authenticated') and s.rolname = 'service_role'
     and pg_has_role(r.oid, s.oid, 'MEMBER')
$$;

-- ---------------------------------------------------------------------------------------------
-- The rehearsal: an empty period goes the whole way, and nothing of it stays

alter table kvitt.integrations add column rehearses text;
comment on column kvitt.integrations.rehearses is
  'The integration for which it stands in, for the seconds of a rehearsal; null: it is a real one.';

-- A stand-in numbers no voucher, so that it may have the source of the one that it stands in for.
drop trigger voucher_numbers_meet on kvitt.integrations;
create trigger voucher_numbers_meet
  after insert or update of vendor, connection, mapping, enabled, first_voucher_number
  on kvitt.integrations for each row
  when (new.vendor = 'xledger' and new.enabled and new.rehearses is null)
  execute function kvitt.keep_voucher_numbers_apart();

-- Claims an empty period of a stand-in for an integration, as claim_period does, and answers the
-- same. The real one's calendar, lease and records are not touched. The stand-in is switched off
-- before anybody else can see it, so that nobody else works on it, and its period came due a moment
-- ago. end_rehearsal removes it; one whose process died is removed by the next rehearsal.
create function kvitt.begin_rehearsal(p_integration text, p_attempt uuid, p_lease interval)
returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  it kvitt.integrations;
  due timestamptz := date_trunc('minute', now());
  answer jsonb;
begin
  perform kvitt.end_rehearsal(r.id) from kvitt.integrations r
   where r.rehearses is not null and r.created_at < now() - interval '15 minutes';
  select * into it from kvitt.integrations where id = p_integration and rehearses is null;
  if not found then
    raise exception 'there is no integration %', p_integration using errcode = 'KV004';
  end if;
  it.id := 'rehearsal-' || left(replace(p_attempt::text, '-', ''), 16);
  it.rehearses := p_integration;
  it.enabled := true;
  it.scheduler := 'prefect';
  it.ping := null;
  it.last_voucher_number := 0;
  it.created_at := now();
  insert into kvitt.integrations select it.* on conflict do nothing;
  if found then -- else it is asked again after a lost reply
    insert into kvitt.periods (integration_id, due_at, opens_at, key)
    values (it.id, due, due - interval '1 minute', kvitt.period_key(it.id, due));
  end if;
  answer := kvitt.claim_period(it.id, p_attempt, p_lease, 'person');
  update kvitt.integrations set enabled = false where id = it.id;
  return answer;
end $$;

-- What an Edge Function hands over for a stand-in by mistake goes with it; nothing else ever does.
create function kvitt.guard_removal() returns trigger
language plpgsql set search_path = '' as $$
begin
  if exists (select from kvitt.integrations
              where id = old.integration_id and rehearses is not null) then
    return old;
  end if;
  raise exception 'record % of %: a record does not change; a correction is a new record that '
    'reverses and replaces it', to_jsonb(old) ->> coalesce(tg_argv[0], 'id'), old.integration_id
    using errcode = 'KV005';
end $$;

drop trigger guard_content on kvitt.records;
create trigger guard_content before update on kvitt.records
  for each row execute function kvitt.guard_record();
create trigger guard_removal before delete on kvitt.records
  for each row execute function kvitt.guard_removal();
drop trigger guard_content on kvitt.record_lines;
create trigger guard_content before update on kvitt.record_lines
  for each row execute function kvitt.guard_record_line();
create trigger guard_removal before delete on kvitt.record_lines
  for each row execute function kvitt.guard_removal('record_id');

-- Removes a stand-in and all that came of it. Never anything of a real integration. Twice is once.
create function kvitt.end_rehearsal(p_rehearsal text) returns void
language plpgsql security definer set search_path = '' as $$
declare
  everything text;
begin
  perform from kvitt.integrations where id = p_rehearsal and rehearses is not null for update;
  if not found then
    return;
  end if;
  -- Whatever a table holds of it, also one of a later migration. In one statement, at whose end they
  -- may no longer name each other: so there is no order to keep.
  select format('with %s select', string_agg(
           format('%I as (delete from kvitt.%1$I where integration_id = $1)', c.relname), ', '))
    into everything
    from pg_catalog.pg_class c
    join pg_catalog.pg_attribute a on a.attrelid = c.oid and a.attname = 'integration_id'
   where c.relnamespace = 'kvitt'::regnamespace and c.relkind = 'r' and c.relname <> 'periods';
  execute everything using p_rehearsal;
  delete from kvitt.periods where integration_id = p_rehearsal;
  delete from kvitt.integrations where id = p_rehearsal;
end $$;

-- ---------------------------------------------------------------------------------------------
-- The second scheduler: may the database call out?

-- Hands a harmless request for each address to pg_net: a ping for the Edge Function, the name of a
-- deployment for Prefect. Answers the requests' numbers by what they are for; `called_out` says
-- what came of them. Nobody is told anything, so the address for alarms is not tried.
create function kvitt.call_out() returns jsonb
language plpgsql security definer set search_path = '' as $$
declare
  key text := kvitt.secret('kvitt_function_key');
begin
  return jsonb_build_object(
    'Prefect', kvitt.post(kvitt.secret_address('kvitt_prefect_api_url') || '/deployments/filter',
      '{"limit": 1}',
      jsonb_build_object('Authorization', kvitt.secret('kvitt_prefect_authorization'))),
    'Edge Function', kvitt.post(kvitt.secret_address('kvitt_function_url'), '{"ping": true}',
      jsonb_build_object('apikey', key, 'Authorization', 'Bearer ' || key)));
end $$;

-- What came of requests, {what: status}; what has no answer yet is left out, and 0 is none at all.
create function kvitt.called_out(p_requests jsonb) returns jsonb
language plpgsql stable security definer set search_path = '' as $$
begin
  return (select coalesce(jsonb_object_agg(q.key, coalesce(r.status_code, 0)), '{}')
            from jsonb_each_text(p_requests) q join net._http_response r on r.id = q.value::bigint);
end $$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.describe_schema(),
  kvitt.begin_rehearsal(text, uuid, interval),
  kvitt.end_rehearsal(text),
  kvitt.call_out(),
  kvitt.called_out(jsonb)
to service_role;
