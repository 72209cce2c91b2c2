-- KEYS: the log. ARGV: attempt, floor, start (0 or 1), most entries, seconds to keep a running and a finished log, the task's
-- channel, number of further channels, those, then flag and body of every event. Flags: t terminal, l other lifecycle, o output.
-- Answers the last seq, or nil for a stale speaker.
local log, attempt, floor = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])
local tip = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
local seq, sealed = -1, -1
if tip then
  local newest, seal = tonumber(tip[2][2]), tonumber(tip[2][4])
  if attempt < newest then return false end
  if attempt == newest then
    if seal >= 0 and floor <= seal then return false end
    sealed = seal
  end
  seq = tonumber(string.match(tip[1], '^%d+'))
end
seq = math.max(seq, floor - 1)

local keeps, ended, others = tip or ARGV[3] == '1', false, tonumber(ARGV[8])
for i = 9 + others, #ARGV, 2 do
  local flag, body = ARGV[i], ARGV[i + 1]
  seq = seq + 1
  local digits = string.format('%.0f', seq)
  ended = flag == 't'
  if ended then sealed = seq end
  if keeps then
    redis.call('XADD', log, 'MAXLEN', '=', ARGV[4], digits .. '-1', 'a', attempt, 's', sealed, 'e', body)
  end
  local event = '{"seq":' .. digits .. ',' .. body
  redis.call('PUBLISH', ARGV[7], event)
  if flag ~= 'o' then
    for topic = 9, 8 + others do redis.call('PUBLISH', ARGV[topic], event) end
  end
end
if keeps then redis.call('EXPIRE', log, ended and ARGV[6] or ARGV[5]) end
return seq
