-- Health of a BundleRun for Argo CD: Progressing until it ended, then Healthy or Degraded for good; Suspended while
-- spec.suspend holds it.
local status = obj.status or {}
local phase = status.phase

if phase == "Succeeded" then
  return { status = "Healthy", message = status.message or "the command ended with 0" }
end

if phase == "Failed" or phase == "Stopped" then
  local message = status.message or status.reason or phase
  if status.result ~= nil and status.result.hint ~= nil then
    message = message .. "; " .. status.result.hint
  end
  return { status = "Degraded", message = message }
end

for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Ready" and condition.reason == "Suspended" then
    return { status = "Suspended", message = "spec.suspend holds the run" }
  end
end

if status.waiting ~= nil and status.waiting.message ~= nil then
  local message = status.waiting.message
  if status.waiting.deadline ~= nil then
    message = message .. "; until " .. status.waiting.deadline
  end
  return { status = "Progressing", message = message }
end

return { status = "Progressing", message = status.message or phase or "the operator has not seen the run yet" }
