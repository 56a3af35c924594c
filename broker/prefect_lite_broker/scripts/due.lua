#!lua flags=allow-oom
-- What nobody seems to be seeing to: ended runs in `unblock`, blocked ones whose registration is not confirmed
-- or is to be confirmed again, and parents that were never submitted (they count as ended from here on).
-- Each is the caller's for `lease ms`; should it be gone by then, it is given to the next one.
-- KEYS  1 prefix
-- ARGV  1 limit, 2 lease ms, 3 parents at most (one run with more goes alone), 4 ms until an unknown parent is
--       given up, 5 ms until a registration is confirmed again
-- Returns {more 0|1, number of ended runs, these ..., then per blocked run {run, what it waits for ...}}
-- O(limit + parents).
--@include base
local limit, lease, room = tonumber(ARGV[1]), now + ARGV[2], tonumber(ARGV[3])
local unblock, orphans, blocked = P .. 'unblock', P .. 'orphans', P .. 'blocked'
local out = { 0, 0 }

local function due(key)
  local runs = call('ZRANGE', key, '-inf', now, 'BYSCORE', 'LIMIT', 0, limit)
  if #runs == limit then out[1] = 1 end
  return runs
end

-- What lies further ahead than anybody sets it was set by a clock that ran ahead.
local function cut_back(key, furthest)
  for _, run in ipairs(call('ZRANGE', key, '(' .. now + furthest, '+inf', 'BYSCORE', 'LIMIT', 0, limit)) do
    call('ZADD', key, key == orphans and now + furthest or now, run)
  end
end
cut_back(orphans, tonumber(ARGV[4]))
cut_back(unblock, tonumber(ARGV[2]))
cut_back(blocked, tonumber(ARGV[5]))

local lost = due(orphans)
for _, run in ipairs(lost) do
  call('ZADD', unblock, now, run)
end
if #lost > 0 then call('ZREM', orphans, unpack(lost)) end
for i, run in ipairs(due(unblock)) do
  call('ZADD', unblock, lease, run)
  out[2], out[i + 2] = i, run
end
for _, run in ipairs(due(blocked)) do
  if call('HGET', P .. 'r:' .. run, 'st') ~= 'B' then
    call('ZREM', blocked, run)
  else
    local size = call('HLEN', P .. 'deps:' .. run)
    if size > room and room < tonumber(ARGV[3]) then
      out[1] = 1
      break
    end
    room = room - size
    call('ZADD', blocked, lease, run)
    local deps, one = call('HGETALL', P .. 'deps:' .. run), { run }
    for i = 1, #deps, 2 do
      if deps[i + 1] ~= '' then one[#one + 1] = deps[i] end
    end
    out[#out + 1] = one
  end
end
return out
