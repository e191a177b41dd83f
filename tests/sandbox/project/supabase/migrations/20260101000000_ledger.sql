create schema ledger;
grant usage on schema ledger to anon, service_role;

create table ledger.claims (id int primary key, claimant text not null);
alter table ledger.claims enable row level security;
grant all on ledger.claims to anon, service_role;
insert into ledger.claims values (1, 'Åse'), (2, 'Ola');

create function public.whoami() returns text language sql as 'select current_user';
create function public.echo(value text) returns text language sql as 'select value';
