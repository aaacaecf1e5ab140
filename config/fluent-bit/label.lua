-- The labels of a line: its kind, service and node from the tag (KIND.SERVICE.NODE), its level from its words.
local levels = {
  trace = "debug", debug = "debug", dbug = "debug",
  info = "info", log = "info", notice = "info", statement = "info", detail = "info", hint = "info", context = "info",
  warn = "warn", warning = "warn",
  error = "error", err = "error", eror = "error",
  fatal = "fatal", panic = "fatal", crit = "fatal", critical = "fatal",
}
-- How Redis marks them.
local marks = { ["."] = "debug", ["-"] = "debug", ["*"] = "info", ["#"] = "warn" }

local function level_of(line)
  local named = line:match("%f[%a]level=\"?(%a+)")
  if named then
    return levels[named:lower()] or "unknown"
  end
  local mark = line:match("^%d+:%a %d+ %a+ %d+ [%d:.]+ ([.%-*#]) ")
  if mark then
    return marks[mark]
  end
  -- In capitals and near the start, as Qdrant, Postgres and Python write it; `error` in a sentence is not one.
  for word in line:sub(1, 120):gmatch("%f[%w](%u+)%f[%W]") do
    if levels[word:lower()] then
      return levels[word:lower()]
    end
  end
  return "unknown"
end

function label(tag, time, record)
  local kind, service, node = tag:match("^(%a+)%.([^.]+)%.(.+)$")
  if kind == "audited" then
    -- Qdrant's word, or the gateway's.
    record.level = (record.result == "ok" or record.outcome == "OK") and "info" or "warn"
  else
    -- Without colours.
    local line = tostring(record.log or ""):gsub("\27%[[%d;]*m", "")
    record = { log = line, level = level_of(line) }
  end
  record.kind, record.service, record.node = kind, service, node
  return 2, time, record
end
