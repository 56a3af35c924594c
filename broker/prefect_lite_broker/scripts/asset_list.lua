#!lua flags=no-writes
-- A page of the assets of a shard, in the order of their keys.
-- KEYS  1 prefix
-- ARGV  1 and 2 the range of keys as ZRANGE takes it (texts compared here would follow the server's locale),
--       3 how many at most, 4 bytes of a page
-- Returns {1 if there are more, then per asset: key, fields}. O(log assets + page).
--@include base
local most, room = tonumber(ARGV[3]), tonumber(ARGV[4])
local keys = call('ZRANGE', P .. 'assets', ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, most + 1)
local out = { #keys > most and 1 or 0 }
for i = 1, math.min(#keys, most) do
  local v = call('HMGET', P .. 'asset:' .. keys[i], 'p', 'n', 'm', 'f', 'r', 'l', 'o', 'h')
  room = room - #keys[i] - #(v[1] or '') - #(v[8] or '') - 100
  if room < 0 and i > 1 then
    out[1] = 1
    break
  end
  out[#out + 1], out[#out + 2] = keys[i], v
end
return out
