-- The second scheduler: a job of pg_cron, once a minute, for all integrations. It warms the Edge
-- Function up half a minute before a period is due, asks Prefect for the run when it is, and raises
-- an alarm itself when Prefect is silent. See docs/second-scheduler.md.
--
-- Nothing runs before install_second_scheduler has put the job there, and nothing here needs an
-- extension to be created: a plpgsql body looks for pg_cron, pg_net and Vault only when it runs. (A
-- file outside of the migrations would have to stand in their history, and the Supabase CLI refuses
-- a history that knows more than the folder does.)

alter table kvitt.integrations add column scheduler text not null default 'prefect'
  check (scheduler in ('prefect', 'pg_cron', 'both'));
comment on column kvitt.integrations.scheduler is
  'Who asks for its runs when a period is due. Both at once is harmless: the ledger decides.';

create table kvitt.heartbeats (
  who text primary key check (who <> ''),
  since timestamptz not null default now(),
  beat_at timestamptz not null default now(),
  detail jsonb not null default '{}'
);
comment on table kvitt.heartbeats is
  'When each watcher was last at work: watch (in Prefect) and pg_cron (here) look at each other''s.';
comment on column kvitt.heartbeats.since is 'When it began to beat.';

create table kvitt.deployments (
  integration_id text primary key references kvitt.integrations (id),
  deployment uuid not null,
  written_at timestamptz not null default now()
);
comment on table kvitt.deployments is
  'The id of each integration''s deployment in Prefect. pg_net does not wait for answers, so that it '
  'cannot be looked up when a period is due.';

create table kvitt.alarms (
  kind text not null check (
    -- silent: watch gives no sign of life. overdue: a period was asked for, and nothing came of it.
    -- broken: a step of the second scheduler itself failed.
    kind in ('silent', 'overdue', 'broken')
  ),
  subject text not null check (subject <> ''),
  raised_at timestamptz not null default now(),
  ended_at timestamptz,
  words text not null check (words <> ''),
  -- Telling it: the latest request, and whether one of them was answered with a success.
  request bigint,
  sends integer not null default 0 check (sends >= 0),
  sent_at timestamptz,
  told_at timestamptz,
  primary key (kind, subject, raised_at)
);
comment on table kvitt.alarms is
  'What the database itself told a person: a row an incident, told when it begins and when it ends.';
comment on column kvitt.alarms.words is 'What happened and what to do; once it has ended, how.';

create unique index alarms_once on kvitt.alarms (kind, subject) where ended_at is null;

alter table kvitt.heartbeats enable row level security;
alter table kvitt.deployments enable row level security;
alter table kvitt.alarms enable row level security;
grant select on kvitt.heartbeats, kvitt.deployments, kvitt.alarms to service_role;

-- ---------------------------------------------------------------------------------------------
-- What others tell it

-- A sign of life of a watcher.
create function kvitt.beat(p_who text, p_detail jsonb default '{}') returns void
language sql security definer set search_path = '' as $$
  insert into kvitt.heartbeats (who, detail) values (p_who, p_detail)
  on conflict (who) do update set beat_at = now(), detail = excluded.detail
$$;

-- The deployments in Prefect, {integration: id}. Integrations that it does not name stay as they
-- were; names that are no integration are passed over.
create function kvitt.name_deployments(p_deployments jsonb) returns void
language sql security definer set search_path = '' as $$
  insert into kvitt.deployments as d (integration_id, deployment)
  select key, value::uuid from jsonb_each_text(p_deployments)
   where key in (select id from kvitt.integrations)
  on conflict (integration_id) do update set deployment = excluded.deployment, written_at = now()
   where d.deployment <> excluded.deployment
$$;

-- ---------------------------------------------------------------------------------------------
-- The world outside. Addresses and keys come from Vault and go nowhere else.

-- The secrets, and whether it works without one.
create function kvitt.secrets_of_second_scheduler()
returns table (name text, required boolean, what text)
language sql immutable set search_path = '' as $$
  values ('kvitt_prefect_api_url', true, 'Prefect''s API, like https://prefect.example.org/api'),
         ('kvitt_prefect_authorization', false, 'the header Authorization for it, like Basic …'),
         ('kvitt_function_url', true, 'the Edge Function, like https://….supabase.co/functions/v1/collect'),
         ('kvitt_function_key', false, 'a publishable key of the project'),
         ('kvitt_webhook_url', true, 'where alarms are posted')
$$;

-- A secret, or null where there is none.
create function kvitt.secret(p_name text) returns text
language plpgsql stable set search_path = '' as $$
begin
  return (select nullif(decrypted_secret, '') from vault.decrypted_secrets where name = p_name);
end $$;

create function kvitt.secret_address(p_name text) returns text
language plpgsql stable set search_path = '' as $$
declare
  address text := rtrim(kvitt.secret(p_name), '/');
begin
  if address is null then
    raise exception 'Vault has no secret %', p_name using errcode = 'KV004';
  end if;
  return address;
end $$;

-- Hands a request to pg_net, which sends it once this transaction is committed. Its number says
-- that it is in the queue, and nothing about what became of it.
create function kvitt.post(p_url text, p_body jsonb, p_headers jsonb default '{}') returns bigint
language plpgsql set search_path = '' as $$
begin
  return net.http_post(
    url => p_url, body => p_body,
    headers => '{"Content-Type": "application/json"}' || jsonb_strip_nulls(p_headers),
    timeout_milliseconds => 30000);
end $$;

-- ---------------------------------------------------------------------------------------------
-- When a period is due

-- Which try this is, so late after the period was due: 1 at first, 2 after 5 minutes, 3 after 15,
-- then ever more rarely. While the number stays, a request that is repeated each minute is the same
-- one to Prefect, so that a lost one is made good and no run is doubled.
create function kvitt.try_of(p_late interval) returns integer
language sql immutable set search_path = '' as $$
  select 1 + floor(log(2, 1 + greatest(extract(epoch from p_late), 0) / 300))::integer
$$;

-- The runs to ask for now: one for each integration with work, named by its latest period. A run
-- works on all that is due. Uncertain periods are left to watch, which knows their time.
create function kvitt.runs_to_ask_for()
returns table (integration_id text, deployment uuid, idempotency_key text)
language sql stable set search_path = '' as $$
  select w.integration_id, d.deployment,
         'pg_cron/' || latest.key || '/' || kvitt.try_of(now() - latest.due_at)
    from kvitt.integrations_with_work() w
    join kvitt.integrations i on i.id = w.integration_id and i.scheduler <> 'prefect'
    join kvitt.deployments d using (integration_id),
         lateral (select p.key, p.due_at from kvitt.periods p
                   where p.integration_id = w.integration_id and p.due_at <= now()
                   order by p.due_at desc limit 1) latest
   where w.state <> 'uncertain'
$$;

create function kvitt.ask_for_runs() returns void
language plpgsql set search_path = '' as $$
declare
  run record;
  api text;
  headers jsonb;
begin
  for run in select * from kvitt.runs_to_ask_for() loop
    if api is null then -- once, and only if somebody is due: not everybody has Prefect in Vault
      api := kvitt.secret_address('kvitt_prefect_api_url');
      headers := jsonb_build_object('Authorization', kvitt.secret('kvitt_prefect_authorization'));
    end if;
    perform kvitt.post(
      api || '/deployments/' || run.deployment || '/create_flow_run',
      jsonb_build_object('parameters', jsonb_build_object('trigger', 'pg_cron'),
                         'idempotency_key', run.idempotency_key),
      headers);
  end loop;
end $$;

-- ---------------------------------------------------------------------------------------------
-- Before a period is due

-- When to warm up for the periods of the next minute: half a minute before. Null: there are none.
create function kvitt.next_warm_up() returns timestamptz
language sql stable set search_path = '' as $$
  select min(p.due_at) - interval '30 seconds'
    from kvitt.periods p
    join kvitt.integrations i on i.id = p.integration_id and i.enabled and i.scheduler <> 'prefect'
   where p.state = 'due' and p.due_at > now() and p.due_at <= now() + interval '90 seconds'
$$;

create function kvitt.warm_up() returns void
language plpgsql set search_path = '' as $$
declare
  key text := kvitt.secret('kvitt_function_key');
begin
  perform kvitt.post(kvitt.secret_address('kvitt_function_url'), '{"ping": true}',
    jsonb_build_object('apikey', key, 'Authorization', 'Bearer ' || key));
end $$;

-- ---------------------------------------------------------------------------------------------
-- Alarms: once when an incident begins, and once when it ends

create function kvitt.raise_alarm(p_kind text, p_subject text, p_words text) returns void
language sql set search_path = '' as $$
  insert into kvitt.alarms (kind, subject, words) values (p_kind, p_subject, p_words)
  on conflict (kind, subject) where ended_at is null do nothing
$$;

-- The end is told like the beginning. Where the beginning was not told yet, the end says it all.
create function kvitt.end_alarm(p_kind text, p_subject text, p_words text) returns void
language sql set search_path = '' as $$
  update kvitt.alarms set ended_at = now(), words = p_words, request = null, sends = 0,
         sent_at = null, told_at = null
   where kind = p_kind and subject = p_subject and ended_at is null
$$;

-- Looks at the other watcher: has it been at work within the last p_silence?
create function kvitt.watch_the_watcher(p_silence interval) returns void
language plpgsql set search_path = '' as $$
declare
  beaten timestamptz := (select beat_at from kvitt.heartbeats where who = 'watch');
  since timestamptz := (select since from kvitt.heartbeats where who = 'pg_cron');
begin
  if greatest(coalesce(beaten, since), since) + p_silence > now() then
    -- One that has never been at work is given more time where this was put there anew.
    perform kvitt.end_alarm('silent', 'watch', coalesce(
      'kvitt: Prefect is back. The flow watch was at work at ' || kvitt.said(beaten) || '.',
      'kvitt: Prefect is given more time. The flow watch has never been at work; if it is not by '
      || kvitt.said(since + p_silence) || ', that is told anew.'));
  else
    perform kvitt.raise_alarm('silent', 'watch', format(
      'kvitt: Prefect is silent. The flow watch has given no sign of life since %s (now %s), so '
      'that scheduled exports may not be running. What to do: see whether the Prefect server '
      'answers and a worker of the pool kvitt runs; then start a watch by hand: '
      'prefect deployment run watch/kvitt',
      coalesce(kvitt.said(beaten), 'ever'), kvitt.said(now())));
  end if;
end $$;

-- How late a period may be before a person is told.
create function kvitt.allowed_lateness(p_integration kvitt.integrations) returns interval
language sql stable set search_path = '' as $$
  select make_interval(secs => coalesce((p_integration.limits ->> 'late')::float8, 300))
$$;

-- Looks at the periods that it asked for: none may be overdue. Nobody works on an overdue one. What
-- was switched off, or is left to Prefect now, no longer counts.
create function kvitt.watch_periods() returns void
language plpgsql set search_path = '' as $$
declare
  it record;
begin
  for it in
    select p.key, p.due_at, p.integration_id, i.enabled, p.state,
           p.state in ('verified', 'failed', 'skipped', 'uncertain') as decided
      from kvitt.alarms a
      join kvitt.periods p on p.key = a.subject
      join kvitt.integrations i on i.id = p.integration_id
     where a.kind = 'overdue' and a.ended_at is null
       and (p.state in ('verified', 'failed', 'skipped', 'uncertain')
            or not i.enabled or i.scheduler = 'prefect')
  loop
    perform kvitt.end_alarm('overdue', it.key, case when it.decided
      then format('kvitt: %s is no longer overdue. It was due at %s and is now %s.%s',
        it.key, kvitt.said(it.due_at), it.state,
        case when it.state in ('failed', 'uncertain') then ' kvitt periods says why.' else '' end)
      else format('kvitt: %s is not looked after here any more, since %s %s. It was due at %s and '
        'is still %s.', it.key, it.integration_id,
        case when it.enabled then 'is started by Prefect now' else 'was switched off' end,
        kvitt.said(it.due_at), it.state) end);
  end loop;
  for it in
    select p.key, w.state, w.due_at, w.integration_id, d.deployment
      from kvitt.integrations_with_work() w
      join kvitt.integrations i on i.id = w.integration_id and i.scheduler <> 'prefect'
      join kvitt.periods p on p.integration_id = w.integration_id and p.due_at = w.due_at
      left join kvitt.deployments d on d.integration_id = w.integration_id
     where w.state <> 'uncertain' and make_interval(secs => w.late_seconds::float8) >= kvitt.allowed_lateness(i)
  loop
    perform kvitt.raise_alarm('overdue', it.key, format(
      'kvitt: %s is overdue. It was due at %s; now, at %s, it is %s and nobody works on it, %s. '
      'What to do: look at the latest runs of sync/%s and at the worker in Prefect, and start one '
      'by hand: prefect deployment run sync/%s',
      it.key, kvitt.said(it.due_at), kvitt.said(now()), it.state,
      case when it.deployment is null
           then 'since no deployment of it is known: run kvitt apply first'
           else 'although Prefect was asked for its run' end,
      it.integration_id, it.integration_id));
  end loop;
end $$;

create function kvitt.said(p_at timestamptz) returns text
language sql stable set search_path = '' as $$
  select to_char(p_at at time zone 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
$$;

-- Posts what has not been told yet: {"text": …}, as most chat systems take it. A success in
-- pg_net's table of answers is the only sign that a message arrived. Without one it is sent again
-- after a minute, 2, 4 … up to an hour.
create function kvitt.tell_alarms() returns void
language plpgsql set search_path = '' as $$
declare
  alarm kvitt.alarms;
begin
  update kvitt.alarms a set told_at = now()
    from net._http_response r
   where a.told_at is null and r.id = a.request and r.created >= a.sent_at
     and r.status_code between 200 and 299;
  for alarm in
    select * from kvitt.alarms
     where told_at is null
       -- a few seconds less than whole minutes, since the job is not always on time to the second
       and (sent_at is null
            or sent_at + least(interval '1 minute' * 2 ^ (sends - 1), interval '1 hour')
               <= now() + interval '5 seconds')
     order by raised_at
  loop
    update kvitt.alarms set sends = sends + 1, sent_at = now(),
           request = kvitt.post(kvitt.secret_address('kvitt_webhook_url'),
                                jsonb_build_object('text', alarm.words))
     where (kind, subject, raised_at) = (alarm.kind, alarm.subject, alarm.raised_at);
  end loop;
end $$;

-- pg_cron keeps a row of each run for ever. Ours have nothing to say after a week.
create function kvitt.forget_old_runs() returns void
language plpgsql set search_path = '' as $$
begin
  if to_regclass('cron.job_run_details') is not null then
    delete from cron.job_run_details
     where start_time < now() - interval '7 days'
       and jobid in (select jobid from cron.job where jobname = 'kvitt' and username = current_user);
  end if;
end $$;

-- ---------------------------------------------------------------------------------------------
-- The job

-- Runs a step on its own, so that one that fails stops no other. What Postgres says of the failure
-- might hold an address or a key, so only our own words are kept.
create function kvitt.step(p_step text, p_silence interval default null) returns void
language plpgsql set search_path = '' as $$
begin
  case p_step
    when 'ask for runs' then perform kvitt.ask_for_runs();
    when 'warm up' then perform kvitt.warm_up();
    when 'watch the watcher' then perform kvitt.watch_the_watcher(p_silence);
    when 'watch periods' then perform kvitt.watch_periods();
    when 'tell alarms' then perform kvitt.tell_alarms();
    when 'forget old runs' then perform kvitt.forget_old_runs();
  end case;
  perform kvitt.end_alarm('broken', p_step, format(
    'kvitt: the second scheduler can %s again.', p_step));
exception when others then
  perform kvitt.raise_alarm('broken', p_step, format(
    'kvitt: the second scheduler in the database cannot %s: %s. What to do: kvitt scheduler status '
    'says what is missing.', p_step,
    case when sqlstate like 'KV%' then sqlerrm else 'Postgres error ' || sqlstate end));
end $$;

-- Each minute, by pg_cron. What it hands to pg_net leaves at the next commit, and no transaction of
-- it lasts longer than a second: it holds no lock while it waits, and keeps no row from vacuum.
-- (Only a procedure without a search_path of its own may commit: hence the full names.)
create procedure kvitt.run_second_scheduler(p_silence interval)
language plpgsql as $$
declare
  warm_at timestamptz;
begin
  perform kvitt.step('ask for runs');
  commit;
  perform kvitt.beat('pg_cron');
  perform kvitt.step('watch the watcher', p_silence);
  perform kvitt.step('watch periods');
  perform kvitt.step('tell alarms');
  perform kvitt.step('forget old runs');
  commit;
  warm_at := kvitt.next_warm_up();
  if warm_at is null then
    return;
  end if;
  while pg_catalog.clock_timestamp() < warm_at loop
    perform pg_catalog.pg_sleep(
      least(1, pg_catalog.date_part('epoch', warm_at - pg_catalog.clock_timestamp())));
    commit;
  end loop;
  perform kvitt.step('warm up');
end $$;

-- ---------------------------------------------------------------------------------------------
-- Putting it there, taking it away, and what is there

-- The job, or the same job with another p_silence. Twice is once.
create function kvitt.install_second_scheduler(p_silence interval) returns void
language plpgsql security definer set search_path = '' as $$
declare
  there jsonb := kvitt.second_scheduler() -> 'extensions';
  missing text := (select string_agg(key, ', ' order by key) from jsonb_each(there)
                    where value = 'false');
begin
  if missing is not null then
    raise exception 'this database has no %: enable it first (on Supabase: Database, Extensions)',
      missing using errcode = 'KV004';
  elsif p_silence is null or p_silence < interval '1 minute' then
    raise exception 'watch may be silent for a minute at least, not for %', p_silence
      using errcode = 'KV003';
  end if;
  insert into kvitt.heartbeats (who) values ('pg_cron') on conflict do nothing;
  perform cron.schedule('kvitt', '* * * * *',
    format('call kvitt.run_second_scheduler(%L)', p_silence));
end $$;

-- Takes the job away, and ends its alarms without a word. Twice is once.
create function kvitt.uninstall_second_scheduler() returns void
language plpgsql security definer set search_path = '' as $$
begin
  if to_regclass('cron.job') is not null then
    perform cron.unschedule(jobid) from cron.job where jobname = 'kvitt' and username = current_user;
  end if;
  delete from kvitt.heartbeats where who = 'pg_cron';
  update kvitt.alarms set ended_at = coalesce(ended_at, now()), told_at = coalesce(told_at, now())
   where ended_at is null or told_at is null;
end $$;

-- What is there and what is missing; no secret's content.
create function kvitt.second_scheduler() returns jsonb
language plpgsql stable security definer set search_path = '' as $$
declare
  job jsonb;
  known text[] := '{}';
begin
  if to_regclass('cron.job') is not null then
    select to_jsonb(j) into job from
      (select schedule, command, active, username from cron.job
        where jobname = 'kvitt' and username = current_user) j;
  end if;
  if to_regclass('vault.decrypted_secrets') is not null then
    select array_agg(name) into known from vault.decrypted_secrets
     where name in (select s.name from kvitt.secrets_of_second_scheduler() s)
       and decrypted_secret <> '';
  end if;
  return jsonb_build_object(
    'now', now(),
    'extensions', jsonb_build_object(
      'pg_cron', to_regclass('cron.job') is not null,
      'pg_net', exists (select from pg_catalog.pg_proc
                         where pronamespace = to_regnamespace('net') and proname = 'http_post'),
      'supabase_vault', to_regclass('vault.decrypted_secrets') is not null),
    'secrets', (select jsonb_agg(jsonb_build_object('name', s.name, 'what', s.what,
                         'required', s.required, 'there', s.name = any (coalesce(known, '{}'))))
                  from kvitt.secrets_of_second_scheduler() s),
    'job', job,
    'heartbeats', (select coalesce(jsonb_object_agg(who, beat_at), '{}') from kvitt.heartbeats),
    'integrations', (
      select coalesce(jsonb_agg(jsonb_build_object('id', i.id, 'scheduler', i.scheduler,
               'deployment', d.deployment) order by i.id), '[]')
        from kvitt.integrations i left join kvitt.deployments d on d.integration_id = i.id
       where i.enabled and i.scheduler <> 'prefect'),
    'alarms', (select coalesce(jsonb_agg(jsonb_build_object('raised_at', raised_at, 'words', words,
                        'told', told_at is not null) order by raised_at), '[]')
                 from kvitt.alarms where ended_at is null));
end $$;

revoke execute on all routines in schema kvitt from public;
grant execute on function
  kvitt.beat(text, jsonb),
  kvitt.name_deployments(jsonb),
  kvitt.install_second_scheduler(interval),
  kvitt.uninstall_second_scheduler(),
  kvitt.second_scheduler()
to service_role;
