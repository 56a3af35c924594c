"""Whether each further start of a run has a cause.

A lease ends in one of four ways. *Reaped*: then the next lease of the run comes with a higher count of lost
leases, which Redis keeps, so it is known even when the broker that reaped was killed before it could say so.
*Given back* (RELEASE) or *retried* (RETRY): brokers write that they ask before they ask. *Closed* with its
session: the same. *Ended* by FINISH: then no other may follow, unless somebody replayed the run.

So of the leases with the same count at most one can have been left without a cause: the one that ended the
run, or was reaped, or is still in force.
"""

from __future__ import annotations

from collections import Counter, defaultdict

from tests.chaos.events import Events, RunHistory


def unexplained_starts(run: RunHistory, events: Events) -> tuple[str, int]:
    """Judge the starts of one run.

    Returns:
        Why one of them has no cause ("": each has), and how many starts repeated an attempt.
    """
    if len(run.starts) < 2:
        return "", 0
    attempts = Counter(start.attempt for start in run.starts)
    repeated = sum(count - 1 for count in attempts.values())
    (token, attempt), count = Counter((start.token, start.attempt) for start in run.starts).most_common(1)[0]
    if count > 1:
        return f"attempt {attempt} was started {count} times under one lease, {token}", repeated
    if run.replayed:
        return "", repeated
    return _after_the_end(run) or _two_in_force(run, events), repeated


def _after_the_end(run: RunHistory) -> str:
    for commit in run.commits:
        if commit.end is None or commit.status == "stale":
            continue
        for token in {start.token for start in run.starts} - {commit.token}:
            lease = run.leases.get(token)
            if lease is not None and lease.at > commit.at:
                return (
                    f"it had ended under {commit.token}, and was started under {token}, which was given later"
                )
    return ""


def _two_in_force(run: RunHistory, events: Events) -> str:
    back, retried = run.asked_for("release"), run.asked_for("retry")
    started: dict[int, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for start in run.starts:
        lease = run.leases.get(start.token)
        # Without a lease it is "unexpected"; here it counts as a first one.
        started[lease.lost if lease is not None else 0][start.token].add(start.attempt)
    for lost, by_token in started.items():
        open_ended = [
            token
            for token in by_token
            if token not in back
            and (token not in run.leases or run.leases[token].session not in events.closed)
        ]
        # A retry is another attempt: it is no cause for the same one.
        unended = [token for token in open_ended if token not in retried]
        same = Counter(attempt for token in open_ended for attempt in by_token[token])
        if len(unended) > 1:
            return f"started under {', '.join(unended)}, none of which had ended ({lost} lost leases)"
        for attempt, count in same.items():
            if count > 1:
                return f"attempt {attempt} was started under {count} leases ({lost} lost leases)"
    return ""
