-- KEYS: the log of each append. ARGV: most entries of a log, milliseconds to keep a running and a finished one, then per append:
-- attempt, floor, start (0 or 1), the task's channel, number of further channels, those, number of events, then flag and body
-- of each event. Flags: t terminal, s started, l other lifecycle, o output. An attempt starts once: where the log knows of it, a
-- late or repeated start is left out.
-- Answers per append the last seq and whether it is kept (0 or 1), or false for a stale speaker.
local entries_max, keep_running, keep_finished = ARGV[1], ARGV[2], ARGV[3]
local at = 3

local function take()
  at = at + 1
  return ARGV[at]
end

local function append(log)
  local attempt, floor, start, channel = tonumber(take()), tonumber(take()), take() == '1', take()
  local topics, events = {}, {}
  for i = 1, tonumber(take()) do topics[i] = take() end
  for i = 1, 2 * tonumber(take()) do events[i] = take() end

  local tip = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  local seq, sealed, has_started = -1, -1, false
  if tip then
    local newest, seal = tonumber(tip[2][2]), tonumber(tip[2][4])
    if attempt < newest then return false end
    if attempt == newest then
      if seal >= 0 and floor <= seal then return false end
      sealed = seal
    end
    seq = tonumber(string.match(tip[1], '^%d+'))
    has_started = attempt == newest and floor <= seq
  end
  seq = math.max(seq, floor - 1)

  -- Tokens come often and renew nothing: a log that is lost in a very long run begins anew.
  local keeps, ended, renews = tip or start, false, not tip
  for i = 1, #events, 2 do
    local flag, body = events[i], events[i + 1]
    if not (flag == 's' and has_started) then
      seq = seq + 1
      local digits = string.format('%.0f', seq)
      ended, renews = flag == 't', renews or flag ~= 'o'
      if ended then sealed = seq end
      if keeps then
        redis.call('XADD', log, 'MAXLEN', '=', entries_max, digits .. '-1', 'a', attempt, 's', sealed, 'e', body)
      end
      local event = '{"seq":' .. digits .. ',' .. body
      redis.call('PUBLISH', channel, event)
      if flag ~= 'o' then
        for _, topic in ipairs(topics) do redis.call('PUBLISH', topic, event) end
      end
    end
  end
  if keeps and renews then redis.call('PEXPIRE', log, ended and keep_finished or keep_running) end
  return { seq, keeps and 1 or 0 }
end

local seqs = {}
for i = 1, #KEYS do seqs[i] = append(KEYS[i]) end
return seqs
