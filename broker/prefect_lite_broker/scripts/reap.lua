#!lua flags=allow-oom
-- Ends the leases of sessions that are past their deadline, at most `limit` runs a call.
-- KEYS  1 prefix
-- ARGV  1 lease ms, 2 max lost, 3 suspect group max, 4 limit, 5 record ttl ms, 6 idempotency ms,
--       7 most dead runs, 8 gap ms: from so long without a look on, nobody could have renewed
-- Returns {more 0|1, then per run: run id, task key, session, outcome, lost, state or ''}
--       outcome: ready, suspect, cancelled, crashed
-- O(sessions past their deadline + runs).
--@include base
--@include states
--@include ready
--@include hints
--@include closing
--@include burial
--@include ending
--@include state
local lease, max_lost, group_max, left = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local ttl, keep, most_dead, gap = ARGV[5], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])
local SESSIONS = 20 -- a call looks at
local sessions, latest = P .. 'sessions', now + lease
local last = tonumber(call('GET', P .. 'tick') or 0)
call('SET', P .. 'tick', now)
if now - last > gap or now < last then
  -- Nobody could renew (outage, freeze, all brokers down) or the clock was set: everybody gets a lease.
  for _, session in ipairs(call('ZRANGE', sessions, 0, -1)) do
    call('ZADD', sessions, latest, session)
  end
  return { 0 }
end
for _, session in ipairs(call('ZRANGE', sessions, '(' .. latest, '+inf', 'BYSCORE')) do
  call('ZADD', sessions, latest, session) -- set by a clock that ran ahead
end

local out, n, ready, ended, suspects = { 0 }, 1, {}, {}, {}

-- A session's worker in words; what it told of itself at HELLO may be anything.
local function worker_of(session)
  local packed = call('HGET', P .. 's:' .. session, 'i')
  local ok, info = pcall(cmsgpack.unpack, packed or '')
  if not ok or type(info) ~= 'table' or type(info.host) ~= 'string' then return 'session ' .. session end
  local name = type(info.name) == 'string' and info.name ~= '' and string.sub(info.name, 1, 64) .. ' on ' or ''
  return string.format('%s%s (pid %s)', name, string.sub(info.host, 1, 64), tonumber(info.pid) or '?')
end

local function crash(run, rk, lost, op, session)
  local worker = worker_of(session)
  close_options(run, op, ttl, keep)
  call('HSET', rk, 'st', 'h', 'e', now, 't', '', 'l', lost, 'nm', 'Crashed', 'lw', worker, 'ms',
    string.format('its worker was lost %d time%s, last %s; `prefect-lite dead replay %s` runs it again', lost,
      lost == 1 and '' or 's', worker, run))
  call('ZADD', P .. 'dead', now, run)
  local over = call('ZCARD', P .. 'dead') - most_dead
  if over > 0 then
    for i, old in ipairs(call('ZPOPMIN', P .. 'dead', math.min(over, 100))) do
      if i % 2 == 1 then bury(old, ttl) end
    end
  end
end

-- Ends one lease; returns what came of it and how many leases the run has lost.
local function lose(run, token, grouped, session)
  local rk = P .. 'r:' .. run
  local v = call('HMGET', rk, 'st', 't', 'd', 'l', 'op', 'su', 'sm')
  local st, lost = v[1], tonumber(v[4] or 0)
  if v[2] ~= token or not LEASED[st] then return nil end
  local _, q = cut(v[3])
  local task = string.sub(q, 1, -3)
  if st == 'K' then
    end_cancelled(run, v[5], '', 'its worker was lost while it was being cancelled', ttl, keep)
    call('HSET', rk, 't', '') -- a late commit is stale, not a repeat
    return 'cancelled', lost, task
  end
  lost = lost + 1
  local limit = max_lost
  if v[5] then limit = cmsgpack.unpack(v[5]).l or limit end
  if lost > limit then
    crash(run, rk, lost, v[5], session)
    return 'crashed', lost, task
  end
  -- Many runs lost together: most are innocent, and isolating each would take too long.
  local suspect = v[6] or lost > 1 or not grouped
  if suspect then
    local suspicion = lost > 1 and 2 or 1
    call('HSET', rk, 'st', 'R', 't', '', 'l', lost, 'su', suspicion)
    local claim, place = string.match(token, '%.(%d+)%.(%d+)$')
    local began = st == 'L' and now or tonumber(v[7] or 0)
    suspects[#suspects + 1] = { began, tonumber(claim or 0), tonumber(place or 0), lane_of(q, suspicion), run }
  else
    call('HSET', rk, 'st', 'R', 't', '', 'l', lost)
    push_head(q, { run })
  end
  wait_again(run, v[5])
  ready[task] = true
  return suspect and 'suspect' or 'ready', lost, task
end

-- Many begin in the same moment: then the one that was claimed last.
local function later(a, b)
  for i = 1, 3 do
    if a[i] ~= b[i] then return a[i] > b[i] end
  end
  return false
end

-- What began last comes first: a run that kills its worker at once is then tried before its former
-- neighbours are back beside it. That holds across task keys, whose lists would otherwise go by name.
local function push_suspects()
  table.sort(suspects, later)
  for i, suspect in ipairs(suspects) do
    push(suspect[4], { suspect[5] }, i / 1000)
  end
  suspects = {}
end

local late = call('ZRANGE', sessions, '-inf', now, 'BYSCORE', 'LIMIT', 0, SESSIONS)
if #late == SESSIONS then out[1] = 1 end
for _, session in ipairs(late) do
  if left <= 0 then
    out[1] = 1
    break
  end
  local sk, hk = P .. 's:' .. session, P .. 'h:' .. session
  local group = call('HGET', sk, 'g')
  if not group then
    group = call('HLEN', hk)
    -- The epoch moves on: nobody claims with it or renews it from here on.
    call('HSET', sk, 'g', group, 'e', (call('HGET', sk, 'e') or 0) + 1)
  end
  local held, gone = call('HRANDFIELD', hk, left, 'WITHVALUES'), {}
  for i = 1, #held, 2 do
    local run = held[i]
    local outcome, lost, task = lose(run, held[i + 1], tonumber(group) > group_max, session)
    gone[#gone + 1] = run
    if outcome then
      out[n + 1], out[n + 2], out[n + 3], out[n + 4], out[n + 5] = run, task, session, outcome, lost
      out[n + 6] = ''
      if outcome == 'cancelled' or outcome == 'crashed' then
        out[n + 6], ended[#ended + 1] = state_of(run), run
      end
      n = n + 6
    end
  end
  push_suspects()
  left = left - #gone
  if #gone > 0 then
    call('HDEL', hk, unpack(gone))
    call('HDEL', P .. 'c:' .. session, unpack(gone))
  end
  if call('EXISTS', hk) == 1 then
    out[1] = 1
  else
    call('DEL', sk, P .. 'c:' .. session)
    call('ZREM', sessions, session)
  end
end
local keys = {}
for key in pairs(ready) do
  keys[#keys + 1] = key
end
hint('', 'r', keys)
hint('', 'e', ended)
return out
