"""The key map: every Redis key of a namespace, and which shard a run lives in.

All keys of a shard start with ``pl:{<namespace>:<shard>}:`` and so share one hash slot; the scripts get
this prefix as their only KEYS entry and build the rest. ``q`` is ``<task key>:<lane>``.

=====================  ======  =======================================================================
key                    type    content
=====================  ======  =======================================================================
``ready:<q>``          LIST    run ids; lane ``0`` (default) to ``9``, higher first; before them the suspects,
                               runs that lost a lease alone or with few others: lane ``s`` (one lease lost),
                               of which a session takes the next one when the last has been running for
                               ``suspect_seconds``, and lane ``z`` (two or more), of which a session holds
                               one at most and no other suspect beside it
``open``               ZSET    the non-empty ready lists, by lane and then by when last served
``delayed``            ZSET    run id by due time (ETA, retry backoff)
``expires``            ZSET    run id by expiry; waiting runs end there
``r:<run>``            HASH    the record, fields below
``b:<run>``            STRING  the body while the run may still execute, then its result. Apart from the
                               record because one value over 64 bytes turns a compact hash into a table
                               of about three times its size
``s:<session>``        HASH    ``e`` epoch, ``n`` last claim number, ``b`` its token base, ``k`` task keys
                               (msgpack), ``u`` the suspect it took last, ``uc`` how many it holds, ``d``
                               digest, ``i`` info (msgpack), ``at`` opened ms, ``g`` runs held when its lease
                               ended (it is dying)
``h:<session>``        HASH    what it holds: run id -> token
``c:<session>``        HASH    of these, the ones to be cancelled: run id -> token
``sessions``           ZSET    session by lease deadline
``tick``               STRING  when the reaper last looked
``audit``              HASH    the pass that all brokers share: ``pos`` where it is, ``at`` its last slice,
                               ``runs`` and ``undecided`` so far (``last_...``: of the pass before),
                               ``passes``, ``repaired``
``dead``               ZSET    runs that lost too many leases, kept with their bodies for a replay
``idem:<n>:<k>:<i>``   STRING  run id and fingerprint that idempotency key ``i`` of task key ``k`` stands for;
                               ``n`` is the length of ``k``, which may have colons like ``i``
``log:<run>``          LIST    packed log lines
``mark``               STRING  made and deleted in one go when a connection waits for replicas
``ev``                 pub/sub wake-up hints
``keep:<key>``         STRING  an entry: ``f`` (it has a time of its own) or ``s`` (its time starts anew when
                               it is read), then its body; it always expires
``lock:<key>``         HASH    ``h`` who holds the lock, until it expires; ``m`` mark of the question that
                               dropped it last, which stays for a while without a holder
``blocks``             HASH    in the first shard: ``slug/name`` of a saved block -> its document
``did:<mark>``         STRING  for a while: the question about a block, or an entry under a lock, with this
                               mark was done
``assets``             ZSET    the keys of assets, in their order
``assets_at``          ZSET    the same by when they were heard of last; beyond a number the oldest go
``asset:<key>``        HASH    what is known of an asset, see ``store_assets.py``
``asset_runs:<key>``   HASH    run id -> what is recorded of it, the newest runs
``asset_at:<key>``     ZSET    the same runs by when they were recorded
``made:<run>``         STRING  for a week: the assets that a run has made or read
``blocked``            ZSET    runs that wait for others, by when their registration with these is to be
                               looked at: a second after the submit, or much later once it is confirmed
``deps:<run>``         HASH    in its own shard, what it waits for: run id -> ``s`` (has to be COMPLETED),
                               ``t`` (has to end) or nothing (has ended). It stays until these have let it go
``blocked:<run>``      SET     in the shard of the run waited for: who is to be told of its end
``needed:<run>``       SET     the same, until they have ended: so long its record stays. It has all of
                               ``blocked:<run>``
``unblock``            ZSET    ended runs with children to be told or parents to be let go, by when somebody
                               other than the broker that ended them is to see to it
``orphans``            ZSET    runs that others wait for and nobody has submitted, by when they are given up
=====================  ======  =======================================================================

``pl:{<namespace>}:meta`` (HASH) holds shard count and schema, written at first start.

Record fields: ``st`` state letter (``RunPhase.code``), ``d`` ``<submitted ms>:<q>``, ``fp`` fingerprint,
``n`` name, ``op`` rare options (msgpack map; ``p``: it waits, or waited, for others, ``w``: others wait, or
waited, for it), ``dl`` how many it waits for, ``o`` session and ``t`` token of the lease, ``ct`` token of
the last commit that did not end the run, ``a`` attempt started last (absent: 1), ``na`` attempt asked for
by RETRY, ``sm`` started ms, ``hi`` earlier attempts (see lib/history.lua), ``e`` ended ms, ``l`` leases lost,
``su`` suspect (1, or 2 when it lost two or more), ``du`` due ms, ``nm`` and ``ms`` name and message of the
end, ``rm`` message of the last RETRY, ``rn`` what the task calls the run, ``in`` what SUBMIT says the run
belongs to, ``rq`` the last request that replayed or dropped it. Times are Redis TIME in ms.
"""

from __future__ import annotations

import zlib

from redis.crc import key_slot

from prefect_lite.exceptions import ConfigurationError

SCHEMA_VERSION = 1


def prefix(namespace: str, shard: int) -> bytes:
    """Start of all keys of a shard."""
    return f"pl:{{{namespace}:{shard}}}:".encode()


def meta_key(namespace: str) -> str:
    return f"pl:{{{namespace}}}:meta"


def slot(key: bytes) -> int:
    """The hash slot of a key in a cluster; all keys of a shard have that of its prefix."""
    return key_slot(key)


def shard_of(run_id: str, shards: int) -> int:
    """The low 12 bits of a run id choose its shard.

    Raises:
        ValueError: The id does not end in hex digits.
    """
    return int(run_id[-3:], 16) % shards


def shard_of_key(key: str, shards: int) -> int:
    """The shard of the entry and the lock of a key; the same in every version."""
    return zlib.crc32(key.encode()) % shards


def check_namespace(namespace: str) -> None:
    """
    Raises:
        ConfigurationError: The name would break the hash tag of the keys.
    """
    if not namespace or len(namespace) > 64 or any(char in "{}:" or char.isspace() for char in namespace):
        raise ConfigurationError(
            f"Namespace {namespace!r} must have 1 to 64 characters, none of them a brace, a colon or a space."
        )
