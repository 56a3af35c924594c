#!lua flags=allow-oom
-- For test suites: as if `ms` had passed for everything that waits for a moment (delayed and expiring runs,
-- records, ids and entries that are kept for a time, parents that were never submitted). Leases and locks are
-- left alone: nobody had that time to renew them.
-- KEYS  1 prefix
-- ARGV  1 ms
-- Returns how many keys were gone through. O(all keys): never for a server in use.
--@include base
local ms = tonumber(ARGV[1])
local WAITING = { R = true, D = true, B = true }

for _, name in ipairs({ 'delayed', 'expires', 'orphans' }) do
  local entries = call('ZRANGE', P .. name, 0, -1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    call('ZADD', P .. name, entries[i + 1] - ms, entries[i])
  end
end

local function bring_forward(rk)
  local v = call('HMGET', rk, 'st', 'du', 'op')
  if not WAITING[v[1]] then return end
  if v[2] then call('HSET', rk, 'du', v[2] - ms) end
  local o = v[3] and cmsgpack.unpack(v[3])
  if o and o.x then
    o.x = o.x - ms
    call('HSET', rk, 'op', cmsgpack.pack(o))
  end
end

local runs, locks, count, cursor = P .. 'r:', P .. 'lock:', 0, '0'
repeat
  local page = call('SCAN', cursor, 'COUNT', 1000)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    if string.sub(key, 1, #P) == P then
      count = count + 1
      local lock = string.sub(key, 1, #locks) == locks
      local left = lock and -1 or call('PTTL', key)
      if left >= 0 then
        if left <= ms then call('UNLINK', key) else call('PEXPIRE', key, left - ms) end
      elseif string.sub(key, 1, #runs) == runs then
        bring_forward(key)
      end
    end
  end
until cursor == '0'
return count
