-- Shared head: the key prefix, Redis TIME (the only clock that decides anything), and small words.
local P, call = KEYS[1], redis.call
local clock = call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)

local function cut(text, at) -- the two parts around the first ':'
  local i = string.find(text, ':', at or 1, true)
  return string.sub(text, 1, i - 1), string.sub(text, i + 1)
end

local unblocks = {} -- runs that this script put into `unblock`: whoever called it sees to them
