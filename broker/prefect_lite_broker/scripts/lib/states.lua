-- Kinds of states. A table costs some 3,000 instructions per call, so only who looks up many includes this.
-- By name, not by order: strings are compared in the server's locale, where 'K' may come after 'a'.
local LEASED = { L = true, X = true, K = true }
local TERMINAL = { c = true, f = true, h = true, k = true }
