#!lua
-- Stores pending runs and answers the claim that comes with them, as submit.lua and then claim.lua do.
--
-- Where nothing waits that the claim would have to take first (no list of what the session serves is open, all
-- runs are new and of one queue, and have no options that decide when or whether they start), as many of them as
-- the claim takes are leased as they are stored: they never stand in a list.
-- KEYS  1 prefix
-- ARGV  1 to 9 those of claim.lua, 10 and following those of submit.lua
-- Returns 1 when all are new and leased in their order, their tokens numbered from 1; else {what submit.lua
--       returns, what claim.lua returns}, or {what submit.lua returns of the others, number of runs} when as
--       many of the first have been leased so.
-- Nobody repeats this call: submit.lua and claim.lua take the same ARGV, and both know what it has done.
-- O(open lists + runs + parents); one EXISTS, one MSET and two HSET for the runs leased at once, one HSET each;
-- one EXISTS and one ZRANGE more where lists of others are open.
--@include base
local FIRST = 12 -- place of the first run in ARGV
local KEPT = { g = true, l = true, m = true, r = true } -- options that are only written down, see submit.lua
local options = {} -- by place of the run in ARGV

-- Whether the options of a run have no say in when or whether it starts.
local function only_kept(i)
  local o = cmsgpack.unpack(ARGV[i + 5])
  for name in pairs(o) do
    if not KEPT[name] then return false end
  end
  options[i] = o
  return true
end

-- Whether all of these runs are new, alike and of one queue; the second value: no list at all is open.
local function alike(q)
  local rks, seen = { P .. 'open', P .. 'orphans' }, {}
  for i = FIRST, #ARGV, 6 do
    local run = ARGV[i]
    if ARGV[i + 1] ~= q or seen[run] or (ARGV[i + 5] ~= '' and not only_kept(i)) then return false end
    seen[run] = true
    rks[#rks + 1] = P .. 'r:' .. run
  end
  if #rks - 2 > tonumber(ARGV[11]) then return false end
  local there = call('EXISTS', unpack(rks))
  if there == 0 then return true, true end
  return there == 1 and call('EXISTS', rks[1]) == 1, false
end

-- Whether the claim would find these runs, in their order, and nothing before them: its session serves them, and
-- no list of a task key that it serves is open.
local function straight(q, nothing_open)
  local s = call('HMGET', P .. 's:' .. ARGV[1], 'e', 'n', 'k')
  if s[1] ~= ARGV[2] or tonumber(ARGV[3]) <= tonumber(s[2]) or not s[3] then return false end
  local serves = {}
  for _, key in ipairs(cmsgpack.unpack(s[3])) do
    serves[key] = true
  end
  if not serves[string.sub(q, 1, -3)] then return false end
  if nothing_open then return true end
  local open = call('ZRANGE', P .. 'open', 0, 63)
  for _, list in ipairs(open) do
    if serves[string.sub(list, 1, -3)] then return false end
  end
  return #open < 64
end

--@include kept
-- As in submit.lua the records come after what may fail, and after them what tells the claim's repeat.
local function lease_at_once(q, count)
  local session, base, d = ARGV[1], ARGV[5], now .. ':' .. q
  local bodies, held = {}, {}
  for i = 1, count do
    local at, j = FIRST + 6 * (i - 1), 2 * i
    bodies[j - 1], bodies[j] = P .. 'b:' .. ARGV[at], ARGV[at + 3]
    held[j - 1], held[j] = ARGV[at], base .. i
  end
  call('HSET', P .. 'h:' .. session, unpack(held))
  call('MSET', unpack(bodies))
  for i = 1, count do
    local at = FIRST + 6 * (i - 1)
    local rk, fp, name, token = P .. 'r:' .. ARGV[at], ARGV[at + 2], ARGV[at + 4], held[2 * i]
    local o = options[at]
    if name == '' and not o then
      call('HSET', rk, 'st', 'L', 'd', d, 'fp', fp, 'o', session, 't', token)
    else
      local fields = { 'st', 'L', 'd', d, 'fp', fp, 'o', session, 't', token }
      if name ~= '' then
        fields[11], fields[12] = 'n', name
      end
      if o then kept_fields(fields, o) end
      call('HSET', rk, unpack(fields))
    end
  end
  call('HSET', P .. 's:' .. session, 'n', ARGV[3], 'b', base)
end

local q, taken = ARGV[FIRST + 1], 0
local plain, nothing_open = alike(ARGV[FIRST + 1])
if plain and straight(q, nothing_open) then
  local count = (#ARGV - FIRST + 1) / 6
  taken = math.min(count, tonumber(ARGV[4]))
  if taken > 0 then lease_at_once(q, taken) end
  if taken == count then return 1 end
end
--@include ready
--@include hints
--@include store
if taken > 0 then return { store(10, taken), taken } end
--@include closing
--@include ending
--@include lease
return { store(10, 0), lease() }
