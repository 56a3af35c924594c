-- What every end of a run has in common. `op` is the packed map of rare options, or false.
local UNBLOCK_AFTER = 1000 -- ms that the broker which ended a run has for what follows, before others see to it

-- A run that others wait for, or that waited for others, goes into `unblock` as it ends.
-- Returns how long the record is to live, in ms; nil: until the last run that waited for it has ended.
local function close_options(run, op, ttl, keep)
  if not op then return ttl end
  local o = cmsgpack.unpack(op)
  local life = o.r or ttl
  if o.x then call('ZREM', P .. 'expires', run) end
  if o.i then call('PEXPIRE', P .. 'idem:' .. o.i, keep) end
  if o.r then call('PEXPIRE', P .. 'log:' .. run, o.r) end
  if o.p then call('ZREM', P .. 'blocked', run) end
  local needed = o.w and call('EXISTS', P .. 'needed:' .. run) == 1
  if o.p or needed then
    call('ZADD', P .. 'unblock', now + UNBLOCK_AFTER, run)
    unblocks[run] = true
  end
  if needed then return nil end
  return life
end
