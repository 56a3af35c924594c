#!lua
-- Appends log lines, keeping the last ones of each run.
-- KEYS  1 prefix
-- ARGV  1 lines kept per run, 2 record ttl ms, then per run: run id, number of lines, lines ...
-- Returns nothing. They live as long as the run's record, and no shorter than usual while it may still
-- write. Not worth the last memory: refused when it is full. O(lines).
--@include base
--@include states
local most, ttl = tonumber(ARGV[1]), tonumber(ARGV[2])
local i = 3
while i <= #ARGV do
  local key, n = P .. 'log:' .. ARGV[i], tonumber(ARGV[i + 1])
  local length = 0
  for at = i + 2, i + 1 + n, 1000 do -- Lua's stack takes no more than some thousands
    length = call('RPUSH', key, unpack(ARGV, at, math.min(at + 999, i + 1 + n)))
  end
  if length > most then call('LTRIM', key, -most, -1) end
  local v = call('HMGET', P .. 'r:' .. ARGV[i], 'st', 'op')
  local own = v[2] and cmsgpack.unpack(v[2]).r
  call('PEXPIRE', key, own and (TERMINAL[v[1]] and own or math.max(own, ttl)) or ttl)
  i = i + 2 + n
end
return 1
