-- Adds to the fields of a new record what the options say of the run; `in` stands apart from the options, which
-- every script that comes by unpacks.
local function kept_fields(fields, o)
  local n = #fields
  if o.m then
    fields[n + 1], fields[n + 2] = 'in', o.m
    n, o.m = n + 2, nil
  end
  if next(o) then fields[n + 1], fields[n + 2] = 'op', cmsgpack.pack(o) end
end
