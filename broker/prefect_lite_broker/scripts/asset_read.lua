#!lua flags=no-writes
-- What is recorded of an asset, and a page of its runs, newest first.
-- KEYS  1 prefix
-- ARGV  1 asset key, 2 offset, 3 how many at most, 4 bytes of a page
-- Returns {} when it is unknown, else {fields, number of runs that are kept, then per run: id, ms, record}.
-- O(log runs + page).
--@include base
local key, room = ARGV[1], tonumber(ARGV[4])
if not call('ZSCORE', P .. 'assets', key) then return {} end
local at, runs = P .. 'asset_at:' .. key, P .. 'asset_runs:' .. key
local out = { call('HMGET', P .. 'asset:' .. key, 'p', 'n', 'm', 'f', 'r', 'l', 'o', 'h'), call('ZCARD', at) }
local page = call('ZRANGE', at, ARGV[2], ARGV[2] + ARGV[3] - 1, 'REV', 'WITHSCORES')
for i = 1, #page, 2 do
  local record = call('HGET', runs, page[i])
  room = room - #record - 100
  if room < 0 and i > 1 then break end
  out[#out + 1], out[#out + 2], out[#out + 3] = page[i], page[i + 1], record
end
return out
