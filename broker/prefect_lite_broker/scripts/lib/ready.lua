-- Ready lists. A queue name q is '<task key>:<lane>', lane '0'..'9' (priority), 's' (suspects) or 'z'
-- (suspects that lost two leases or more). `open` orders the non-empty ones: s, z, then priority 9 to 0,
-- then the least recently served.
local CLASS = { s = 0, z = 0.5 }
local function open_list(q, place) -- `place`: ms, orders what one script opens
  local lane = string.sub(q, -1)
  local class = CLASS[lane] or 10 - lane
  call('ZADD', P .. 'open', class * 1e13 + now + clock[2] % 1000 / 1000 + (place or 0), q)
end

local function push(q, ids, place)
  if call('RPUSH', P .. 'ready:' .. q, unpack(ids)) == #ids then open_list(q, place) end
end

local function push_head(q, ids) -- the last of `ids` becomes the head
  if call('LPUSH', P .. 'ready:' .. q, unpack(ids)) == #ids then open_list(q) end
end

-- Where a run belongs once it is ready. The suspicion is the record's `su`: false, 1 (lost one lease) or 2.
local function lane_of(q, suspicion)
  if suspicion then return string.sub(q, 1, -2) .. (tonumber(suspicion) == 1 and 's' or 'z') end
  return q
end

-- The promoter drops the expiry of a run that is executing; one that waits again needs it back.
local function wait_again(run, op)
  if op then
    local x = cmsgpack.unpack(op).x
    if x then call('ZADD', P .. 'expires', x, run) end
  end
end
