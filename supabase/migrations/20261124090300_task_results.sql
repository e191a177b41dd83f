-- Prefect's task results, kept beside the ledger. The key is the task's name and the idempotency
-- key; the first result stays, since the outcome of a period does not change.

create function kvitt.write_task_result(p_key text, p_content text) returns void
language sql security definer set search_path = '' as $$
  insert into kvitt.task_results (key, content) values (p_key, p_content)
  on conflict (key) do nothing
$$;

create function kvitt.read_task_result(p_key text) returns text
language sql stable security definer set search_path = '' as $$
  select content from kvitt.task_results where key = p_key
$$;

revoke execute on all functions in schema kvitt from public;
grant execute on function
  kvitt.write_task_result(text, text),
  kvitt.read_task_result(text)
to service_role;
