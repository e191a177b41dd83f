"""What must be so at the end, wherever it was worked: nothing doubled, lost or stuck."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from tests.beyond.scene import Scene


def problems(it: Scene, due: list[datetime]) -> list[str]:
    """Say what is not as it must be; nothing, if all is."""
    it.post_what_is_staged()
    return [
        *_unsettled(it, due),
        *_chunks(it),
        *_books(it),
        *_doubled_runs(it),
        *_doubled_events(it),
        *_automations(it),
    ]


def _unsettled(it: Scene, due: list[datetime]) -> list[str]:
    """Each integration has each period, settled, by one attempt that said so."""
    periods = it.ask(
        """
        select p.key, p.state::text, p.due_at, count(a.id) as settled
          from kvitt.periods p left join kvitt.attempts a
            on (a.integration_id, a.due_at, a.outcome) = (p.integration_id, p.due_at, 'settled')
         where p.due_at <= %(last)s group by 1, 2, 3
        """,
        last=due[-1],
    )
    expected = len(due) * len(it.integrations)
    wrong = [f"{p['key']} is {p['state']}" for p in periods if p["state"] != "verified"]
    wrong += [
        f"{p['key']} was settled {p['settled']} times"
        for p in periods
        if p["state"] == "verified" and p["settled"] != 1
    ]
    return wrong + ([] if len(periods) == expected else [f"{len(periods)} periods, not {expected}"])


def _chunks(it: Scene) -> list[str]:
    chunks = it.ask(
        "select integration_id, number, state::text from kvitt.chunks where state <> 'confirmed'"
    )
    return [f"chunk {c['number']} of {c['integration_id']} is {c['state']}" for c in chunks]


def _books(it: Scene) -> list[str]:
    found = {name: books.audit() for name, books in it.books.items()}
    wrong = [f"{name}: {one.summary}" for name, one in found.items() if not one.clean]
    return wrong + [f"{name} has no lines" for name, one in found.items() if not one.lines]


def _doubled_runs(it: Scene) -> list[str]:
    """Two servers with a scheduler each make one run for a deployment and a time."""
    runs = it.ask_prefect(
        """
        select f.name || '/' || d.name as name, r.expected_start_time as due, count(*) as n
          from flow_run r join deployment d on d.id = r.deployment_id
                            join flow f on f.id = d.flow_id
         where r.auto_scheduled group by d.id, 1, 2 having count(*) > 1
        """
    )
    return [f"{r['name']} was scheduled {r['n']} times for {r['due']}" for r in runs]


def settled_events(it: Scene) -> Counter[str]:
    """Count the events that say that a period is settled, by its key."""
    events = it.ask_prefect(
        "select payload ->> 'period' as key from events where event = 'kvitt.period.settled'"
    )
    return Counter(event["key"] for event in events)


def _doubled_events(it: Scene) -> list[str]:
    return [f"{key} told settled {n} times" for key, n in settled_events(it).items() if n > 1]


def crashed_runs(it: Scene) -> Counter[str]:
    """Count the runs of `sync` that crashed, by what the automation did: each is once."""
    runs = it.ask_prefect(
        """
        select e.id::text, (
                 select count(*) from events t
                  where t.event = 'prefect.automation.action.executed'
                    and t.related @> jsonb_build_array(jsonb_build_object(
                          'prefect.resource.id', 'prefect.event.' || e.id::text))) as fired
          from events e
         where e.event = 'prefect.flow-run.Crashed'
           and e.related @> '[{"prefect.resource.role": "flow", "prefect.resource.name": "sync"}]'
        """
    )
    return Counter({run["id"]: run["fired"] for run in runs})


def _automations(it: Scene) -> list[str]:
    """For no crashed run did the automation run twice, or make two runs.

    That it has not run yet is no fault of this kind: `crashed_runs` tells it. An event whose
    predecessor was lost with a server is held back by Prefect for a quarter of an hour.
    """
    crashed = crashed_runs(it)
    [made] = it.ask_prefect(
        "select count(*) as n from flow_run where created_by ->> 'type' = 'AUTOMATION'"
    )
    wrong = [f"crash {one}: the automation ran {n} times" for one, n in crashed.items() if n > 1]
    if made["n"] > len(crashed):
        wrong.append(f"{len(crashed)} crashed runs, {made['n']} runs made by the automation")
    return wrong
