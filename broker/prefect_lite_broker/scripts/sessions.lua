#!lua flags=no-writes
-- Lists sessions, 100 a call.
-- KEYS  1 prefix
-- ARGV  1 how many to skip
-- Returns {now ms, then per session: id, deadline ms, epoch, packed keys or '', packed info, opened ms,
--       held runs}
-- O(sessions returned).
--@include base
local out = { now }
local page = call('ZRANGE', P .. 'sessions', ARGV[1], ARGV[1] + 99, 'WITHSCORES')
for i = 1, #page, 2 do
  local s = call('HMGET', P .. 's:' .. page[i], 'e', 'k', 'i', 'at')
  local n = #out
  out[n + 1], out[n + 2], out[n + 3] = page[i], page[i + 1], s[1] or 0
  out[n + 4], out[n + 5], out[n + 6] = s[2] or '', s[3] or '', s[4] or 0
  out[n + 7] = call('HLEN', P .. 'h:' .. page[i])
end
return out
