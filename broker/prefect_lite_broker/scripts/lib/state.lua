-- One run as records.py reads it: st d a na sm e l du nm ms rm, then the result when it has
-- ended, and 1 when this script put it into `unblock`.
local function state_of(run)
  local v = call('HMGET', P .. 'r:' .. run, 'st', 'd', 'a', 'na', 'sm', 'e', 'l', 'du', 'nm', 'ms', 'rm')
  local st = v[1]
  -- A dead run keeps its body for a replay: that is no result.
  if TERMINAL[st] and not (st == 'h' and call('ZSCORE', P .. 'dead', run)) then
    v[12] = call('GET', P .. 'b:' .. run)
  end
  if unblocks[run] then
    v[12] = v[12] or false
    v[13] = 1
  end
  return v
end
