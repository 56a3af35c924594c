#!lua
-- Stores pending runs, each once, and queues those that neither wait for others nor are delayed.
-- KEYS  1 prefix
-- ARGV  1 sender of the hint or '-', 2 most runs in a ready list, delayed and blocked ones, then six per run:
--       run id, queue, fingerprint, body, name, options ('' or msgpack map, relative times in ms:
--       c countdown, x expiry, r record ttl, l max lost, i idempotency suffix, z body size, g tags,
--       p runs that must be COMPLETED before it is ready, t runs that must have ended in any way,
--       f: full, the run is refused unless it is stored already)
-- Returns the number of runs when all are new and accepted, else one word per run:
--       a accepted, e exists, c conflict, f full, 'e'|'c' .. run id (held by an idempotency key)
-- All reads come before the first write, and the records are written last: should a write fail half-way
-- (a key of a foreign type), the repeat finds no record that lacks its body or its place in a queue.
-- A run that others wait for already, while it was unknown, is marked as such.
-- O(runs + parents); one EXISTS, one MSET and one RPUSH per queue for the whole batch, one HSET per run.
--@include base
--@include ready
--@include hints
--@include store
return store(1, 0)
