#!lua flags=allow-oom
-- Registers runs with those they wait for, in the shard of the latter.
-- KEYS  1 prefix
-- ARGV  1 ms until a parent that nobody submits counts as unknown, then two per pair: parent, child
-- Returns per pair how the parent ended ('' not yet, or not submitted yet): its state letter and name.
-- A parent that has ended is registered with all the same, and put into `unblock`, so that the pair is seen
-- to by somebody else should this caller be gone. Its record stays from here on. O(pairs).
--@include base
--@include states
--@include dependents
local wait, out, outcomes, children = tonumber(ARGV[1]), {}, {}, {}
for i = 2, #ARGV, 2 do
  local parent, child = ARGV[i], ARGV[i + 1]
  local outcome = outcomes[parent]
  if not outcome then
    local v = call('HMGET', P .. 'r:' .. parent, 'st', 'nm', 'op')
    outcome = outcome_of(v[1], v[2])
    if outcome == 'u' then
      call('ZADD', P .. 'orphans', 'NX', now + wait, parent)
      outcome = ''
    else
      mark(parent, v[3])
      if outcome ~= '' then
        keep_result(parent)
        call('ZADD', P .. 'unblock', 'NX', now + 1000, parent)
      end
    end
    outcomes[parent], children[parent] = outcome, {}
  end
  local ids = children[parent]
  ids[#ids + 1] = child
  out[#out + 1] = outcome
end
for parent, ids in pairs(children) do
  call('SADD', P .. 'blocked:' .. parent, unpack(ids))
  call('SADD', P .. 'needed:' .. parent, unpack(ids))
end
return out
