#!lua flags=no-writes
-- Figures of one shard, of at most 1,000 ready lists.
-- KEYS  1 prefix
-- Returns {sessions, delayed, dead, held runs, now ms, blocked, then per list: queue, length, oldest submit ms}
-- O(lists + sessions).
--@include base
local held = 0
for _, session in ipairs(call('ZRANGE', P .. 'sessions', 0, 9999)) do
  held = held + call('HLEN', P .. 'h:' .. session)
end
local out = {
  call('ZCARD', P .. 'sessions'), call('ZCARD', P .. 'delayed'), call('ZCARD', P .. 'dead'), held, now,
  call('ZCARD', P .. 'blocked'),
}
for _, q in ipairs(call('ZRANGE', P .. 'open', 0, 999)) do
  local list = P .. 'ready:' .. q
  local head = call('LINDEX', list, 0)
  if head then
    local d = call('HGET', P .. 'r:' .. head, 'd')
    local n = #out
    out[n + 1], out[n + 2] = q, call('LLEN', list)
    out[n + 3] = d and tonumber((cut(d))) or 0
  end
end
return out
