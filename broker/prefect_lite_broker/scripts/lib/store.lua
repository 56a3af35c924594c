-- Stores pending runs; see submit.lua, whose ARGV begin at `from` here. So many runs are `done` already.
local function store(from, done)
  local sender, longest = ARGV[from], tonumber(ARGV[from + 1])
  local first = from + 2 + 6 * done
  local WIRE_AFTER = 1000 -- ms that the broker which stored a blocked run has to register it with its parents
  local rks, n = {}, 0
  for i = first, #ARGV, 6 do
    n = n + 1
    rks[n] = P .. 'r:' .. ARGV[i]
  end
  rks[n + 1] = P .. 'orphans' -- asked for in the same call: it hardly ever exists
  local clean, orphans = call('EXISTS', unpack(rks)) == 0, false
  if not clean then orphans = call('EXISTS', rks[n + 1]) == 1 end
  local words, options, plain, seen = {}, {}, true, {}
  local room, holders = {}, {}

  -- The word for a run that is to be stored unless its queue is full or its idempotency key is taken. The
  -- fingerprint is kept beside the id under that key, because the key outlives the record.
  local function admit(run, q, fp, o)
    if o and o.i then
      local key = P .. 'idem:' .. o.i
      local held = holders[key] or call('GET', key)
      local other = held and string.sub(held, 1, 32)
      -- Of this very run: it was stored once, and its record has outlived its time.
      if held then return (string.sub(held, 33) == fp and 'e' or 'c') .. (other == run and '' or other) end
    end
    if o and o.f then return 'f' end
    local place = o and ((o.p or o.t) and 'blocked' or o.c and 'delayed') or q
    local free = room[place]
    if not free then
      free = longest - (place == q and call('LLEN', P .. 'ready:' .. q) or call('ZCARD', P .. place))
    end
    room[place] = free - 1
    if free <= 0 then return 'f' end
    if o and o.i then holders[P .. 'idem:' .. o.i] = run .. fp end
    return 'a'
  end

  -- A plain submit carries no fingerprint (it would cost an encoding per call): its id alone tells a repeat.
  local at = first
  for i = 1, n do
    local run, fp, packed, word = ARGV[at], ARGV[at + 2], ARGV[at + 5], nil
    if seen[run] then
      word = (seen[run] == fp or seen[run] == '') and 'e' or 'c'
    elseif not clean then
      local old = call('HGET', rks[i], 'fp')
      if old then word = (old == fp or old == '') and 'e' or 'c' end
    end
    if not word then
      if packed ~= '' then options[i] = cmsgpack.unpack(packed) end
      word = admit(run, ARGV[at + 1], fp, options[i])
      if word == 'a' then seen[run] = fp end
    end
    if word ~= 'a' then plain = false end
    words[i] = word
    at = at + 6
  end

  -- Writes down what a run waits for; Lua's stack takes no more than some thousands at once.
  local function depend(key, ids, kind)
    local pairs_ = {}
    for i, parent in ipairs(ids or {}) do
      pairs_[#pairs_ + 1], pairs_[#pairs_ + 2] = parent, kind
      if #pairs_ == 2000 or i == #ids then
        call('HSET', key, unpack(pairs_))
        pairs_ = {}
      end
    end
  end

  -- Returns how many runs it waits for.
  local function block(run, o)
    local key = P .. 'deps:' .. run
    depend(key, o.t, 't')
    depend(key, o.p, 's') -- one that is in both lists has to be COMPLETED
    call('ZADD', P .. 'blocked', now + WIRE_AFTER, run)
    o.p, o.t = 1, nil
    return call('HLEN', key)
  end

  local blobs, blob_count, queues, names = {}, 0, {}, {}
  local blocked = {} -- position -> number of parents
  at = first
  for i = 1, n do
    if words[i] == 'a' then
      local run, q, o = ARGV[at], ARGV[at + 1], options[i]
      blobs[blob_count + 1], blobs[blob_count + 2] = P .. 'b:' .. run, ARGV[at + 3]
      blob_count = blob_count + 2
      if o and (o.p or o.t) then
        blocked[i] = block(run, o)
      elseif o and o.c then
        call('ZADD', P .. 'delayed', now + o.c, run)
      else
        local ids = queues[q]
        if not ids then
          ids = {}
          queues[q] = ids
        end
        ids[#ids + 1] = run
      end
      if o and o.x then
        o.x = now + o.x
        call('ZADD', P .. 'expires', o.x, run)
      end
    end
    at = at + 6
  end
  if blob_count > 0 then call('MSET', unpack(blobs)) end
  for q, ids in pairs(queues) do
    push(q, ids)
    names[#names + 1] = string.sub(q, 1, -3)
  end

  at = first
  local stamp = now .. ':' -- once: making a number a string costs as much as half a command
  for i = 1, n do
    if words[i] == 'a' then
      local name, o, d = ARGV[at + 4], options[i], stamp .. ARGV[at + 1]
      local wanted = orphans and call('ZSCORE', P .. 'orphans', ARGV[at])
      if wanted then
        o = o or {}
        o.w = 1
      end
      if name == '' and not o then
        call('HSET', rks[i], 'st', 'R', 'd', d, 'fp', ARGV[at + 2])
      else
        local due = o and o.c and now + o.c
        local fields = { 'st', blocked[i] and 'B' or due and 'D' or 'R', 'd', d, 'fp', ARGV[at + 2] }
        local f = 6
        if name ~= '' then
          fields[f + 1], fields[f + 2] = 'n', name
          f = f + 2
        end
        if due then
          o.c = nil
          fields[f + 1], fields[f + 2] = 'du', due
          f = f + 2
        end
        if blocked[i] then
          fields[f + 1], fields[f + 2] = 'dl', blocked[i]
          f = f + 2
        end
        if o then kept_fields(fields, o) end
        call('HSET', rks[i], unpack(fields))
        -- After the record: a key that stands for its own run says that the run was stored.
        if o and o.i then call('SET', P .. 'idem:' .. o.i, holders[P .. 'idem:' .. o.i]) end
        if wanted then call('ZREM', P .. 'orphans', ARGV[at]) end
      end
    end
    at = at + 6
  end
  if sender ~= '-' then hint(sender, 'r', names) end
  if plain then return n end
  return words
end
