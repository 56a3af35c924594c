-- Appends log lines, keeping the last ones of each run.
-- KEYS  1 prefix
-- ARGV  1 lines kept per run, 2 ttl ms, then per run: run id, number of lines, lines ...
-- Returns nothing. O(lines).
local P, call, most = KEYS[1], redis.call, tonumber(ARGV[1])
local i = 3
while i <= #ARGV do
  local key, n = P .. 'log:' .. ARGV[i], tonumber(ARGV[i + 1])
  local length = call('RPUSH', key, unpack(ARGV, i + 2, i + 1 + n))
  if length > most then call('LTRIM', key, -most, -1) end
  call('PEXPIRE', key, ARGV[2])
  i = i + 2 + n
end
return 1
