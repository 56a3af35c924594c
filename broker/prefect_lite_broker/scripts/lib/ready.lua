-- Ready lists. A queue name q is '<task key>:<lane>', lane '0'..'9' (priority) or 's' (suspects).
-- `open` orders the non-empty ones: suspects, then priority 9 to 0, then the least recently served.
local function open_list(q)
  local lane = string.sub(q, -1)
  local class = lane == 's' and 0 or 10 - lane
  call('ZADD', P .. 'open', class * 1e13 + now + clock[2] % 1000 / 1000, q)
end

local function push(q, ids)
  if call('RPUSH', P .. 'ready:' .. q, unpack(ids)) == #ids then open_list(q) end
end

local function push_head(q, ids) -- the last of `ids` becomes the head
  if call('LPUSH', P .. 'ready:' .. q, unpack(ids)) == #ids then open_list(q) end
end

local function lane_of(q, suspect) -- where a run belongs once it is ready
  if suspect then return string.sub(q, 1, -2) .. 's' end
  return q
end

-- The promoter drops the expiry of a run that is executing; one that waits again needs it back.
local function wait_again(run, op)
  if op then
    local x = cmsgpack.unpack(op).x
    if x then call('ZADD', P .. 'expires', x, run) end
  end
end
