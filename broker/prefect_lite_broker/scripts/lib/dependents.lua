-- What a run is to those that wait for it.
local NAMES = { c = 'Completed', f = 'Failed', h = 'Crashed', k = 'Cancelled' }

-- How a run ended: its state letter and name; '' while it has not; 'u' when there is no record of it.
local function outcome_of(st, name)
  if not st then return 'u' end
  if not TERMINAL[st] then return '' end
  return st .. (name and name ~= '' and name or NAMES[st])
end

-- Marks a run that others wait for: from here on its end puts it into `unblock`, and its record stays.
local function mark(run, op)
  local o = op and cmsgpack.unpack(op) or {}
  if o.w then return end
  o.w = 1
  call('HSET', P .. 'r:' .. run, 'op', cmsgpack.pack(o))
end

-- Keeps the record and result of a run that has ended.
local function keep_result(run)
  call('PERSIST', P .. 'r:' .. run)
  call('PERSIST', P .. 'b:' .. run)
end
