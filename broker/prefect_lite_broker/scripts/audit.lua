#!lua flags=allow-oom
-- Looks at a slice of a shard's keys, and repairs what disagrees with the record of its run.
--
-- Every script leaves state and queue in agreement, so what is found here was lost or written by somebody
-- else; this script sees no half-done work, because scripts run one at a time. A pass goes over all keys (a
-- SCAN), then over the sorted sets; brokers share it through the hash `audit`, one slice at a time.
-- KEYS  1 prefix
-- ARGV  1 least ms since the last slice, or -1: look from position 2 on and leave the shared pass alone,
--       2 position ('' at first), 3 keys to look at, 4 list entries to look through, 5 record ttl ms,
--       6 idempotency ms, 7 lease ms
-- Returns {1, or 0 when it is too early, next position ('' after the last slice), runs looked at, runs for
--       which it could not be decided, then per repair: kind, run or session}; kinds:
--       ready, delayed, expires: a waiting run was missing there; list: a ready list was missing in `open`;
--       lease: a leased run that its session does not hold (it waits again, or is cancelled if it was being
--       cancelled); cancel: an order to cancel that was missing, or out of date; session: one missing in
--       `sessions`, or there without its hash; holding, not_delayed, not_expiring, not_dead: an entry whose
--       record says otherwise; blocked: one that waits for others and would not be looked after; unblocked:
--       one that waited for nothing (any more); waits: one whose count of what it waits for was wrong
-- O(keys + list entries looked through). When these are used up (a long list), the runs that are left are for
-- a later pass, which comes upon them in another order.
--@include base
--@include states
--@include ready
--@include hints
--@include closing
--@include ending
local shared, count, looks = tonumber(ARGV[1]), ARGV[3], tonumber(ARGV[4])
local ttl, keep, lease = ARGV[5], ARGV[6], tonumber(ARGV[7])
local PHASES = { keys = 'delayed', delayed = 'expires', expires = 'dead', dead = 'sessions', sessions = '' }
local REACH, MOST = 1000, 256
local AUDIT, SESSIONS, BLOCKED = P .. 'audit', P .. 'sessions', P .. 'blocked'
local DELAYED, EXPIRES = P .. 'delayed', P .. 'expires'
local position = ARGV[2]
if shared >= 0 then
  local v = call('HMGET', AUDIT, 'at', 'pos')
  if v[1] and now >= tonumber(v[1]) and now - v[1] < shared then return { 0, '', 0, 0 } end
  position = v[2] or ''
end
if position == '' then position = 'keys:0' end
local phase, cursor = cut(position)

local looked, undecided, found, ready, ended = 0, 0, {}, {}, {}
local function repaired(kind, id)
  found[#found + 1], found[#found + 2] = kind, id
end

-- Whether a ready list has a run; nil: it would take too long to say.
local function queued(q, run)
  local list = P .. 'ready:' .. q
  local length = call('LLEN', list)
  if length == 0 then return false end
  local span = math.min(length, looks)
  if span <= 0 then return nil end
  local place = call('LPOS', list, run, 'MAXLEN', span)
  looks = looks - (place and place + 1 or span)
  if place then return true end
  if span == length then return false end
  return nil
end

local function make_ready(run, d, su, op)
  local _, q = cut(d)
  call('HSET', P .. 'r:' .. run, 'st', 'R', 't', '')
  push(lane_of(q, su), { run })
  wait_again(run, op)
  ready[string.sub(q, 1, -3)] = true
end

local check = {}

local function check_blocked(run, d, su, op, due, left)
  if not call('ZSCORE', BLOCKED, run) then
    call('ZADD', BLOCKED, now, run)
    repaired('blocked', run)
  end
  local dk, waits = P .. 'deps:' .. run, 0
  if call('HLEN', dk) > REACH then
    undecided = undecided + 1
    return
  end
  for _, kind in ipairs(call('HVALS', dk)) do
    if kind ~= '' then waits = waits + 1 end
  end
  if waits == 0 then
    call('ZREM', BLOCKED, run)
    call('HDEL', P .. 'r:' .. run, 'dl')
    if due and tonumber(due) > now then
      call('HSET', P .. 'r:' .. run, 'st', 'D')
      call('ZADD', DELAYED, due, run)
    else
      make_ready(run, d, su, op)
    end
    repaired('unblocked', run)
  elseif waits ~= tonumber(left or -1) then
    call('HSET', P .. 'r:' .. run, 'dl', waits)
    repaired('waits', run)
  end
end

check.r = function(run)
  local v = call('HMGET', P .. 'r:' .. run, 'st', 'd', 'o', 't', 'su', 'op', 'du', 'dl')
  local st, d = v[1], v[2]
  if not st or not d then return end
  looked = looked + 1
  if st == 'R' then
    local _, q = cut(d)
    local there = queued(lane_of(q, v[5]), run)
    if there == nil then
      undecided = undecided + 1
    elseif not there then
      make_ready(run, d, v[5], v[6])
      return repaired('ready', run)
    end
  elseif st == 'D' then
    if not call('ZSCORE', DELAYED, run) then
      call('ZADD', DELAYED, v[7] or now, run)
      repaired('delayed', run)
    end
  elseif LEASED[st] then
    if not v[3] or call('HGET', P .. 'h:' .. v[3], run) ~= v[4] then
      if v[3] then call('HDEL', P .. 'c:' .. v[3], run) end
      if st == 'K' then
        end_cancelled(run, v[6], '', 'nobody held it while it was being cancelled', ttl, keep)
        ended[#ended + 1] = run
      else
        make_ready(run, d, v[5], v[6])
      end
      repaired('lease', run)
    elseif st == 'K' and call('HGET', P .. 'c:' .. v[3], run) ~= v[4] then
      call('HSET', P .. 'c:' .. v[3], run, v[4])
      repaired('cancel', run)
    end
    return
  elseif st == 'B' then
    check_blocked(run, d, v[5], v[6], v[7], v[8])
  else
    return
  end
  local x = v[6] and cmsgpack.unpack(v[6]).x
  if x and not call('ZSCORE', EXPIRES, run) then
    call('ZADD', EXPIRES, x, run)
    repaired('expires', run)
  end
end

-- Pairs of a hash, some of them when there are many.
local function some(key)
  return call('HLEN', key) <= MOST and call('HGETALL', key) or call('HRANDFIELD', key, MOST, 'WITHVALUES')
end

check.s = function(session)
  if call('ZSCORE', SESSIONS, session) then return end
  call('ZADD', SESSIONS, now + lease, session)
  repaired('session', session)
end

check.h = function(session)
  if call('EXISTS', P .. 's:' .. session) == 0 and not call('ZSCORE', SESSIONS, session) then
    call('ZADD', SESSIONS, now, session) -- the reaper ends the leases
    repaired('session', session)
  end
  local held = some(P .. 'h:' .. session)
  for i = 1, #held, 2 do
    local v = call('HMGET', P .. 'r:' .. held[i], 'st', 'o', 't')
    if not LEASED[v[1]] or v[2] ~= session or v[3] ~= held[i + 1] then
      call('HDEL', P .. 'h:' .. session, held[i])
      repaired('holding', held[i])
    end
  end
end

check.c = function(session)
  local orders = some(P .. 'c:' .. session)
  for i = 1, #orders, 2 do
    local v = call('HMGET', P .. 'r:' .. orders[i], 'st', 'o', 't')
    if v[1] ~= 'K' or v[2] ~= session or v[3] ~= orders[i + 1] then
      call('HDEL', P .. 'c:' .. session, orders[i])
      repaired('cancel', orders[i])
    end
  end
end

check.ready = function(q)
  if call('ZSCORE', P .. 'open', q) then return end
  open_list(q)
  ready[string.sub(q, 1, -3)] = true
  repaired('list', q)
end

check.delayed = function(run)
  if call('HGET', P .. 'r:' .. run, 'st') == 'D' then return end
  call('ZREM', DELAYED, run)
  repaired('not_delayed', run)
end

check.expires = function(run)
  local v = call('HMGET', P .. 'r:' .. run, 'st', 'op')
  if v[1] and not TERMINAL[v[1]] and v[2] and cmsgpack.unpack(v[2]).x then return end
  call('ZREM', EXPIRES, run)
  repaired('not_expiring', run)
end

check.dead = function(run)
  if call('HGET', P .. 'r:' .. run, 'st') == 'h' then return end
  call('ZREM', P .. 'dead', run)
  repaired('not_dead', run)
end

check.sessions = function(session, deadline)
  if tonumber(deadline) <= now or call('EXISTS', P .. 's:' .. session) == 1 then return end
  call('ZADD', SESSIONS, now, session)
  repaired('session', session)
end

-- A key of a foreign type must not hold up the pass.
local function look(kind, id, score)
  if check[kind] and not pcall(check[kind], id, score) then undecided = undecided + 1 end
end

local page
if phase == 'keys' then
  local pattern = string.gsub(P, '[%*%?%[%]\\]', '\\%0') .. '*'
  page = call('SCAN', cursor, 'MATCH', pattern, 'COUNT', count)
  for _, key in ipairs(page[2]) do
    local name = string.sub(key, #P + 1)
    if string.find(name, ':', 1, true) then look(cut(name)) end
  end
else
  page = call('ZSCAN', P .. phase, cursor, 'COUNT', count)
  for i = 1, #page[2], 2 do
    look(phase, page[2][i], page[2][i + 1])
  end
end

local keys = {}
for key in pairs(ready) do
  keys[#keys + 1] = key
end
hint('', 'r', keys)
hint('', 'e', ended)

local following = phase .. ':' .. page[1]
if page[1] == '0' then following = PHASES[phase] == '' and '' or PHASES[phase] .. ':0' end
if shared >= 0 then
  call('HSET', AUDIT, 'at', now, 'pos', following)
  call('HINCRBY', AUDIT, 'runs', looked)
  call('HINCRBY', AUDIT, 'undecided', undecided)
  if #found > 0 then call('HINCRBY', AUDIT, 'repaired', #found / 2) end
  if following == '' then -- a pass is over
    local v = call('HMGET', AUDIT, 'runs', 'undecided')
    call('HSET', AUDIT, 'last_runs', v[1], 'last_undecided', v[2], 'last_at', now, 'runs', 0, 'undecided', 0)
    call('HINCRBY', AUDIT, 'passes', 1)
  end
end
local out = { 1, following, looked, undecided }
for i = 1, #found do
  out[i + 4] = found[i]
end
return out
