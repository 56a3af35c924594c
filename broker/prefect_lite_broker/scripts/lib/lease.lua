-- Leases ready runs to a session; see claim.lua, whose ARGV begin at 1 here too.
local function lease()
  local session, number, left = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
  local base, ttl, keep, budget, grace = ARGV[5], ARGV[6], ARGV[7], tonumber(ARGV[8]), tonumber(ARGV[9])
  local sk, hk = P .. 's:' .. session, P .. 'h:' .. session
  local s = call('HMGET', sk, 'e', 'n', 'b', 'k', 'u', 'uc')
  if not s[1] then return { 'u' } end
  local last = tonumber(s[2])
  if s[1] ~= ARGV[2] or number < last then return { 'm' } end

  local function attempt_of(a, na)
    return math.max(tonumber(a or 1), tonumber(na or 1))
  end

  if number == last then -- the answer to this number got lost: what it gave is told by the token base
    local out, held = { 'o', 0, -1 }, call('HGETALL', hk)
    for i = 1, #held, 2 do
      if string.sub(held[i + 1], 1, #s[3]) == s[3] then
        local v = call('HMGET', P .. 'r:' .. held[i], 'd', 'a', 'na', 'l')
        local _, q = cut(v[1] or '::')
        local n = #out
        out[n + 1], out[n + 2], out[n + 3] = held[i], held[i + 1], string.sub(q, 1, -3)
        out[n + 4], out[n + 5] = attempt_of(v[2], v[3]), tonumber(v[4] or 0)
        out[n + 6] = call('GET', P .. 'b:' .. held[i]) or ''
      end
    end
    return out
  end

  local function lists_of(keys) -- the open lists this session serves, best first
    local mine, some = {}, {}
    for _, key in ipairs(keys) do
      mine[key] = true
    end
    -- Reading a name in `open` costs far less than asking for the twelve names that a key may have there.
    local most = math.max(256, 12 * #keys)
    local open = call('ZRANGE', P .. 'open', 0, most - 1)
    if #open < most then
      for _, q in ipairs(open) do
        if mine[string.sub(q, 1, -3)] then some[#some + 1] = q end
      end
      return some
    end
    -- Too many open lists to look through: ask for ours by name.
    local ranked = {}
    for _, key in ipairs(keys) do
      local names = { key .. ':s', key .. ':z' }
      for priority = 0, 9 do
        names[#names + 1] = key .. ':' .. priority
      end
      for i, score in ipairs(call('ZMSCORE', P .. 'open', unpack(names))) do
        if score then ranked[#ranked + 1] = { tonumber(score), names[i] } end
      end
    end
    table.sort(ranked, function(a, b) return a[1] < b[1] end)
    for i, pair in ipairs(ranked) do
      some[i] = pair[2]
    end
    return some
  end

  local count, out, held, blobs = 0, { 'o', 1, -1 }, {}, {}
  local expired, full, looks = {}, false, 1000

  -- `gate`: ms until the next suspect of lane s may be taken; -1: not before the one that is here has ended.
  local suspect, suspects, gate = nil, tonumber(s[6] or 0), 0
  if s[5] then
    local v = call('HMGET', P .. 'r:' .. s[5], 'st', 'sm', 'su')
    if v[3] ~= '1' then
      gate = -1
    elseif v[1] == 'L' or not v[2] then
      gate = math.max(1, grace)
    else
      gate = math.min(grace, math.max(0, v[2] + grace - now)) -- a clock set back must not hold it up
    end
  end

  -- Takes up to `want` runs of one list; returns how many, and whether the list may hold more.
  local function take(q, want)
    want = math.min(want, looks)
    local task, popped = string.sub(q, 1, -3), call('LPOP', P .. 'ready:' .. q, want)
    if not popped then
      call('ZREM', P .. 'open', q)
      return 0, false
    end
    if #popped < want then call('ZREM', P .. 'open', q) end
    looks = looks - #popped
    if looks == 0 then full = true end
    local taken, lane = 0, string.sub(q, -1)
    for i, run in ipairs(popped) do
      local rk = P .. 'r:' .. run
      local v = call('HMGET', rk, 'st', 'a', 'na', 'l', 'op')
      if v[1] == 'R' then -- cancelled ids stay in the list and are skipped here
        local o = v[5] and cmsgpack.unpack(v[5])
        if o and o.x and o.x <= now then
          end_cancelled(run, v[5], 'Expired', 'not started before it expired', ttl, keep)
          expired[#expired + 1] = run
        else
          if o and o.z then
            budget = budget - o.z
            if budget < 0 and count > 0 then
              local back = {}
              for j = #popped, i, -1 do
                back[#back + 1] = popped[j]
              end
              push_head(q, back)
              full = true
              return taken, true
            end
          end
          count, taken = count + 1, taken + 1
          local token = base .. count
          call('HSET', rk, 'st', 'L', 'o', session, 't', token)
          local h = count * 2
          held[h - 1], held[h] = run, token
          blobs[count] = P .. 'b:' .. run
          local n = count * 6 - 3
          out[n + 1], out[n + 2], out[n + 3] = run, token, task
          if v[2] or v[3] then out[n + 4] = attempt_of(v[2], v[3]) else out[n + 4] = 1 end
          out[n + 5] = v[4] and tonumber(v[4]) or 0
          if lane == 's' or lane == 'z' then
            suspect, suspects = run, suspects + 1
            gate = lane == 's' and math.max(1, grace) or -1
          end
        end
      end
    end
    return taken, #popped == want
  end

  local lists = s[4] and left > 0 and lists_of(cmsgpack.unpack(s[4])) or {}
  local from = 1
  while from <= #lists and left > 0 and not full do
    local lane = string.sub(lists[from], -1)
    local group = {}
    while from <= #lists and string.sub(lists[from], -1) == lane do
      group[#group + 1] = lists[from]
      from = from + 1
    end
    -- Lists of one priority share what is left; whoever has more to give is asked again.
    while #group > 0 and left > 0 and not full do
      local again = {}
      for i, q in ipairs(group) do
        if lane == 's' or lane == 'z' then
          local more = true
          while more and left > 0 and not full and gate == 0 and (lane == 's' or suspects == 0) do
            local got
            got, more = take(q, 1)
            left = left - got
            if more and #group > 1 then open_list(q) end -- the next suspect is one of another key
          end
          if lane == 's' and gate > 0 and call('EXISTS', P .. 'ready:' .. q) == 1 then out[3] = gate end
        elseif left > 0 and not full then
          local got, more = take(q, math.ceil(left / (#group - i + 1)))
          left = left - got
          if more then again[#again + 1] = q end
        end
      end
      if #again > 0 and #group > 1 then
        for _, q in ipairs(again) do
          open_list(q)
        end
      end
      group = again
    end
  end
  -- Recorded even when nothing was found: a copy of this call still on its way must not claim for nobody.
  call('HSET', sk, 'n', number, 'b', base)
  if suspect then call('HSET', sk, 'u', suspect, 'uc', suspects) end
  if count > 0 then
    call('HSET', hk, unpack(held))
    for i, body in ipairs(call('MGET', unpack(blobs))) do
      out[i * 6 + 3] = body or ''
    end
  end
  if left <= 0 or full then out[2] = 0 end
  hint('', 'e', expired)
  return out
end
