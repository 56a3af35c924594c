#!lua flags=no-writes
-- Reads the records of runs: some by id, or those in a slice of all keys that fit.
-- KEYS  1 prefix
-- ARGV  1 'ids', then run ids; or 'scan', position ('0' at first), keys to look at, task key ('' for any),
--       letters of states ('' for any), least and most submit time in ms (-1: any)
-- Returns {next position ('0' at the end), then per run: id, fields}; fields are those of records.py. Runs that
--       there is no record of are left out. A run may be met twice in a scan, and one that ends or begins
--       meanwhile may be missed, as SCAN promises no more.
-- O(ids), or O(keys looked at).
--@include base
local MESSAGE = 200 -- bytes of a message in a list
local out = { '0' }

local function add(run, v)
  if v[1] then
    out[#out + 1], out[#out + 2] = run, v
  end
end

local function read(run)
  local v = call('HMGET', P .. 'r:' .. run, 'st', 'd', 'a', 'na', 'sm', 'e', 'l', 'du', 'nm', 'ms', 'rm', 'n', 'op',
    'hi', 'rn', 'in')
  if ARGV[1] == 'scan' then
    v[10], v[11] = v[10] and string.sub(v[10], 1, MESSAGE), v[11] and string.sub(v[11], 1, MESSAGE)
  end
  return v
end

if ARGV[1] == 'ids' then
  for i = 2, #ARGV do
    add(ARGV[i], read(ARGV[i]))
  end
  return out
end
local key, letters, least, most = ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7])
local records = P .. 'r:'
local page = call('SCAN', ARGV[2], 'MATCH', string.gsub(records, '[%*%?%[%]\\]', '\\%0') .. '*', 'COUNT', ARGV[3])
out[1] = page[1]
for _, name in ipairs(page[2]) do
  local v = call('HMGET', name, 'st', 'd')
  if v[1] and v[2] and (letters == '' or string.find(letters, v[1], 1, true)) then
    local submitted, q = cut(v[2])
    submitted = tonumber(submitted)
    local fits = (key == '' or string.sub(q, 1, -3) == key) and submitted >= least
    if fits and (most < 0 or submitted <= most) then
      local run = string.sub(name, #records + 1)
      add(run, read(run))
    end
  end
end
return out
